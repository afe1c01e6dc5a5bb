r"""CAT-KD (arXiv:2304.12777); weight and form suit the pair. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/catkd.py
"""

distiller = dict(
    terms=dict(
        catkd=dict(
            criterion=dict(type="kd_core.criteria.catkd.CATKD", bias=False),
            student="@map",
            teacher="@map",
            weight=15.0,
        )
    ),
)
_terms = dict(  # as published, by pair
    resnet56_resnet20=dict(weight=0.7),
    resnet110_resnet32=dict(weight=1.8),
    resnet32x4_resnet8x4=dict(weight=15.0),
    wrn_40_2_wrn_16_2=dict(weight=12.0),
    wrn_40_2_wrn_40_1=dict(weight=1.5),
    vgg13_vgg8=dict(weight=4.5),
    vgg13_MobileNetV2=dict(weight=15.0, criterion=dict(resolution=2, normalize=True)),
    ResNet50_MobileNetV2=dict(weight=40.0, criterion=dict(resolution=2, normalize=True)),
    resnet32x4_ShuffleV1=dict(weight=600.0, criterion=dict(resolution=4, normalize=True)),
    resnet32x4_ShuffleV2=dict(weight=600.0, criterion=dict(resolution=4, normalize=True)),
    wrn_40_2_ShuffleV1=dict(weight=80.0, criterion=dict(resolution=4, normalize=True)),
    imagenet_resnet34_resnet18=dict(weight=0.5, criterion=dict(resolution=4)),
    imagenet_resnet50_mobilenetv1=dict(weight=10.0, criterion=dict(resolution=2, normalize=True)),
)
by_pair = {name: dict(distiller=dict(terms=dict(catkd=term))) for name, term in _terms.items()}
