r"""CC (arXiv:1904.01802) as RepDistiller reduces it. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/cc_neighbour.py
"""

distiller = dict(
    terms=dict(
        cc_neighbour=dict(
            criterion=dict(type="kd_core.criteria.cc.CCNeighbour"),
            student="@pooled",
            teacher="@pooled",
            weight=0.02,
        )
    ),
)
