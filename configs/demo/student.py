"""The demo's student, trained on a few labels with cross-entropy alone.

python tools/cls_train.py configs/demo/student.py
"""

_base_ = "../../packages/kd-cls/src/kd_cls/configs/student.py"
