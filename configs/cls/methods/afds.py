r"""AFDS (ICLR 2020), in the form and with the weight of KD-Zoo. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/afds.py
"""

distiller = dict(
    terms=dict(
        afds=dict(
            criterion=dict(type="kd_core.criteria.afds.AFDS"),
            student="@stages[-3:]",
            teacher="@stages[-3:]",
            weight=500 / 3,  # of the mean over three levels; the criterion sums
        )
    ),
)
