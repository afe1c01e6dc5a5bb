r"""SD-NKD (arXiv:2403.13512). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/sd_nkd.py
"""

distiller = dict(
    terms=dict(
        sd_nkd=dict(
            criterion=dict(type="kd_core.criteria.sdd.SDD", base="nkd"),
            student="@map",
            teacher="@map",
            warmup_epochs=20,
        )
    ),
)
