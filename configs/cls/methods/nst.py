r"""NST (arXiv:1707.01219). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/nst.py
"""

distiller = dict(
    terms=dict(
        nst=dict(
            criterion=dict(type="kd_core.criteria.nst.NST"),
            student="@stages",
            teacher="@stages",
            weight=50.0,
        )
    ),
)
by_pair = dict(  # this student has one more stage: its deepest is left out
    resnet32x4_MobileNetV2=dict(distiller=dict(terms=dict(nst=dict(student="@stages[:3]")))),
)
