"""The demo's student, trained alone on synthetic people.

python tools/reid_train.py configs/demo/reid_student.py
"""

_base_ = "../../packages/kd-reid/src/kd_reid/configs/student.py"
