r"""Symmetric KD as in fast-reid (arXiv:2006.02631), at its temperature 16 and weight 1.

On the logits of the training identities, the same for both networks. Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/symmetric_kd.py
"""

distiller = dict(
    terms=dict(
        symmetric_kd=dict(
            criterion=dict(type="kd_reid.criteria.symmetric_kd.SymmetricKD"),
            student="@logits",
            teacher="@logits",
        )
    ),
)
