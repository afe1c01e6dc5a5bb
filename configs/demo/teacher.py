"""The demo's teacher: a larger network that saw all labels of the training set.

python tools/cls_train.py configs/demo/teacher.py
"""

_base_ = "../../packages/kd-cls/src/kd_cls/configs/teacher.py"
