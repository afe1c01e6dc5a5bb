r"""Market-1501 at 256 x 128 in data/market1501, or anything in its layout with data.root=DIR.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py
"""

data = dict(type="kd_reid.data.market1501")
