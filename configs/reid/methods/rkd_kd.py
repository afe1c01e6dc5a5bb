r"""RKD on the embeddings and KD on the identity logits, each as in rkd.py and kd.py.

Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/rkd_kd.py
"""

distiller = dict(
    terms=dict(
        rkd=dict(
            criterion=dict(type="kd_core.criteria.rkd.RKD"),
            student="@embedding",
            teacher="@embedding",
        ),
        kd=dict(
            criterion=dict(type="kd_core.criteria.kd.KD"),
            student="@logits",
            teacher="@logits",
        ),
    ),
)
