r"""RKD (arXiv:1904.05068) on the embeddings, which may differ in width.

Distances count 25 and angles 50, as in RepDistiller for CIFAR; both are means that do not change
with the length of the embeddings. Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/rkd.py
"""

distiller = dict(
    terms=dict(
        rkd=dict(
            criterion=dict(type="kd_core.criteria.rkd.RKD"),
            student="@embedding",
            teacher="@embedding",
        )
    ),
)
