r"""KDSVD (arXiv:1807.06819). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/kdsvd.py
"""

distiller = dict(
    terms=dict(
        kdsvd=dict(
            criterion=dict(type="kd_core.criteria.kdsvd.KDSVD"),
            student="@stages",
            teacher="@stages",
        )
    ),
)
