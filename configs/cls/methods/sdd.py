r"""SD-DKD (arXiv:2403.13512). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/sdd.py
"""

distiller = dict(
    terms=dict(
        sdd=dict(
            criterion=dict(type="kd_core.criteria.sdd.SDD"),
            student="@map",
            teacher="@map",
            warmup_epochs=20,
        )
    ),
)
