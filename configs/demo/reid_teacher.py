"""The demo's teacher: a wider network.

python tools/reid_train.py configs/demo/reid_teacher.py
"""

_base_ = "../../packages/kd-reid/src/kd_reid/configs/teacher.py"
