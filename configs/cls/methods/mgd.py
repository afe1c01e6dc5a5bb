r"""MGD (arXiv:2205.01529) with its authors' weight for ImageNet. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/mgd.py
"""

distiller = dict(
    terms=dict(
        mgd=dict(
            criterion=dict(type="kd_core.criteria.mgd.MGD"),
            student="@stages[-1]",
            teacher="@stages[-1]",
            weight=7e-5,
        )
    ),
)
