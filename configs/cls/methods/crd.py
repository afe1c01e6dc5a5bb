r"""CRD (arXiv:1910.10699). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/crd.py
"""

distiller = dict(
    terms=dict(
        crd=dict(
            criterion=dict(type="kd_core.criteria.crd.CRD"),
            student="@pooled",
            teacher="@pooled",
            weight=0.8,
        )
    ),
)
