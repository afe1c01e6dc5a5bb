r"""SP (arXiv:1907.09682). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/sp.py
"""

distiller = dict(
    terms=dict(
        sp=dict(
            criterion=dict(type="kd_core.criteria.sp.SP"),
            student="@stages[-1]",
            teacher="@stages[-1]",
            weight=3000.0,
        )
    ),
)
