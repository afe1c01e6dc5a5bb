r"""DML with two codes of the embeddings (arXiv:2108.06681): data, recipe and network, no teacher.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py configs/reid/methods/mag_dml.py
"""

_base_ = "dml.py"

distiller = dict(widths=[64, 256])
