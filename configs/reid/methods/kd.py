r"""KD (arXiv:1503.02531) on the logits of the training identities, the same for both networks.

Weight 1 beside the student's own losses, as fast-reid gives its logit loss (see symmetric_kd.py).
Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/kd.py
"""

distiller = dict(
    terms=dict(
        kd=dict(
            criterion=dict(type="kd_core.criteria.kd.KD"),
            student="@logits",
            teacher="@logits",
        )
    ),
)
