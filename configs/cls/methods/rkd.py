r"""RKD (arXiv:1904.05068). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/rkd.py
"""

distiller = dict(
    terms=dict(
        rkd=dict(
            criterion=dict(type="kd_core.criteria.rkd.RKD"),
            student="@pooled",
            teacher="@pooled",
        )
    ),
)
