r"""MSMT17 (V1 or V2) at 256 x 128 in data/msmt17; trains on the training and validation lists.

python tools/reid_train.py configs/reid/data/msmt17.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py
"""

data = dict(type="kd_reid.data.public", name="msmt17")
