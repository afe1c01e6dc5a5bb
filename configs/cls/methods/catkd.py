r"""CAT-KD (arXiv:2304.12777); weight and form suit the pair. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/catkd.py
"""

distiller = dict(
    terms=dict(
        catkd=dict(
            criterion=dict(type="kd_core.criteria.catkd.CATKD", bias=False),
            student="@map",
            teacher="@map",
            weight=15.0,
        )
    ),
)
