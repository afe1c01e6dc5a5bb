r"""WKD-L and WKD-F together (arXiv:2412.08139), see wkd_logits.py and wkd_features.py. Compose with
data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/wkd.py

For ResNet34 to ResNet18 the authors' weight of the maps is fifty times that of WKD-F alone, which
they do not explain.
"""

_base_ = "wkd_logits.py"

phases = dict(
    student=dict(
        distiller=dict(
            terms=dict(
                wkd_features=dict(
                    criterion=dict(type="kd_core.criteria.wkd.WKDFeatures", mean_ratio=8.0),
                    student="@map",
                    teacher="@map",
                    weight=0.08,
                    decay_after=150,
                )
            )
        )
    )
)
_imagenet = dict(mean_ratio=2.0, grid=4, bottleneck=True)
_terms = dict(  # as published, by pair
    resnet32x4_resnet8x4=dict(wkd_logits=dict(weight=200.0)),
    wrn_40_2_ShuffleV1=dict(
        wkd_logits=dict(weight=60.0, criterion=dict(temperature=4.0)),
        wkd_features=dict(weight=0.5, criterion=dict(mean_ratio=3.0, grid=4)),
    ),
    imagenet_resnet34_resnet18=dict(
        wkd_logits=dict(weight=10.0),
        wkd_features=dict(weight=1.0, decay_after=0, criterion=_imagenet),
    ),
    imagenet_resnet50_mobilenetv1=dict(
        wkd_features=dict(weight=0.005, decay_after=0, criterion=_imagenet)
    ),
)
by_pair = {
    name: dict(phases=dict(student=dict(distiller=dict(terms=terms))))
    for name, terms in _terms.items()
}
