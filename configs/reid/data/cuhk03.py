r"""CUHK03 at 256 x 128 in data/cuhk03: detected boxes, the 767/700 protocol.

python tools/reid_train.py configs/reid/data/cuhk03.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py
"""

data = dict(type="kd_reid.data.public", name="cuhk03")
