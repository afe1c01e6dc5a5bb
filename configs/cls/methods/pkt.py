r"""PKT (arXiv:1803.10837). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/pkt.py
"""

distiller = dict(
    terms=dict(
        pkt=dict(
            criterion=dict(type="kd_core.criteria.pkt.PKT"),
            student="@pooled",
            teacher="@pooled",
            weight=30000.0,
        )
    ),
)
