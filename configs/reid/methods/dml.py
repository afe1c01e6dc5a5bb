r"""DML, two networks that teach one another (arXiv:1706.00384): a recipe and a network, no teacher.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x1_0.py configs/reid/methods/dml.py
"""

peers = dict(peer=dict())
distiller = dict(weight=1.0)
