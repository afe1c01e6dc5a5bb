r"""CC (arXiv:1904.01802), the paper's kernel. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/cc.py
"""

distiller = dict(
    terms=dict(
        cc=dict(
            criterion=dict(type="kd_core.criteria.cc.CC"),
            student="@pooled",
            teacher="@pooled",
            weight=100.0,
        )
    ),
)
