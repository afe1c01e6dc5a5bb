"""The demo's teacher: a ResNet18, 44 times larger.

python tools/reid_train.py configs/demo/reid_teacher.py
"""

_base_ = "../../packages/kd-reid/src/kd_reid/configs/teacher.py"
