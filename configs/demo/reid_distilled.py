"""The demo's student with KD (arXiv:1503.02531) on the identities, from the demo's teacher.

python tools/reid_train.py configs/demo/reid_distilled.py
"""

_base_ = "../../packages/kd-reid/src/kd_reid/configs/distilled.py"
