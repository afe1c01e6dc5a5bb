r"""VID (arXiv:1904.05835) with the fixed variances of mdistiller. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/vid.py
"""

distiller = dict(
    terms=dict(
        vid=dict(
            criterion=dict(type="kd_core.criteria.vid.VID"),
            student="@stages",
            teacher="@stages",
        )
    ),
)
by_pair = dict(  # this student has one more stage: its deepest is left out
    resnet32x4_MobileNetV2=dict(distiller=dict(terms=dict(vid=dict(student="@stages[:3]")))),
)
