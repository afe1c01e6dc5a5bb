r"""WKD-F (arXiv:2412.08139). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/wkd_features.py
"""

distiller = dict(
    terms=dict(
        wkd_features=dict(
            criterion=dict(type="kd_core.criteria.wkd.WKDFeatures", mean_ratio=4.0),
            student="@map",
            teacher="@map",
            weight=0.08,
            decay_after=150,
        )
    ),
)
_imagenet = dict(mean_ratio=2.0, grid=4, bottleneck=True)
_terms = dict(  # as published, by pair
    wrn_40_2_ShuffleV1=dict(weight=0.3, criterion=dict(mean_ratio=3.0, grid=4)),
    imagenet_resnet34_resnet18=dict(weight=0.02, decay_after=0, criterion=_imagenet),
    imagenet_resnet50_mobilenetv1=dict(weight=0.005, decay_after=0, criterion=_imagenet),
)
by_pair = {
    name: dict(distiller=dict(terms=dict(wkd_features=term))) for name, term in _terms.items()
}
