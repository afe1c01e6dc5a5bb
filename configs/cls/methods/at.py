r"""AT (arXiv:1612.03928). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/at.py
"""

distiller = dict(
    terms=dict(
        at=dict(
            criterion=dict(type="kd_core.criteria.at.AT"),
            student="@stages",
            teacher="@stages",
            weight=1000.0,
        )
    ),
)
by_pair = dict(  # this student has one more stage: its deepest is left out
    resnet32x4_MobileNetV2=dict(distiller=dict(terms=dict(at=dict(student="@stages[:3]")))),
)
