r"""FitNet (arXiv:1412.6550), hint and task together. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/fitnet.py
"""

distiller = dict(
    terms=dict(
        fitnet=dict(
            criterion=dict(type="kd_core.criteria.fitnet.FitNet"),
            student="@stages[1]",
            teacher="@stages[1]",
            weight=100.0,
        )
    ),
)
