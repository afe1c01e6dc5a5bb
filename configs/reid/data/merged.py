"""Several sets as one: all are trained on, `search` is evaluated; folders, CSV files, NAME:ROOT.

python tools/reid_train.py configs/reid/data/merged.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py
"""

data = dict(
    type="kd_reid.data.merged",
    sources=["market1501:data", "msmt17:data"],
    search="market1501:data",
)
