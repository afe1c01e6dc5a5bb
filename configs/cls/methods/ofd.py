r"""OFD (arXiv:1904.01866) with the weight of mdistiller. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/ofd.py
"""

distiller = dict(
    terms=dict(
        ofd=dict(
            criterion=dict(type="kd_core.criteria.ofd.OFD"),
            student="@preact",
            teacher="@preact",
            weight=1e-3,
        )
    ),
)
by_pair = dict(  # this student has one more stage: its shallowest is left out
    resnet32x4_MobileNetV2=dict(distiller=dict(terms=dict(ofd=dict(student="@preact[-3:]")))),
)
