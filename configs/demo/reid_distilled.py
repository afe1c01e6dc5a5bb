"""The demo's student with RKD on embeddings and KD on identities, from the demo's teacher.

python tools/reid_train.py configs/demo/reid_distilled.py
"""

_base_ = "../../packages/kd-reid/src/kd_reid/configs/distilled.py"
