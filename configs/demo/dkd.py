"""The demo's student with DKD (arXiv:2203.08679), from the demo's teacher.

python tools/cls_train.py configs/demo/dkd.py
"""

_base_ = "../../packages/kd-cls/src/kd_cls/configs/dkd.py"
