r"""SD-DKD (arXiv:2403.13512). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/sdd.py
"""

distiller = dict(
    terms=dict(
        sdd=dict(
            criterion=dict(type="kd_core.criteria.sdd.SDD"),
            student="@map",
            teacher="@map",
            warmup_epochs=20,
        )
    ),
)
_terms = dict(  # as published, by pair
    resnet56_resnet20=dict(criterion=dict(beta=2.0)),
    resnet110_resnet32=dict(criterion=dict(beta=2.0)),
    resnet32x4_resnet8x4=dict(criterion=dict(beta=8.0)),
    wrn_40_2_wrn_16_2=dict(criterion=dict(beta=6.0)),
    wrn_40_2_wrn_40_1=dict(criterion=dict(beta=6.0)),
    vgg13_vgg8=dict(criterion=dict(beta=6.0)),
    ResNet50_vgg8=dict(criterion=dict(beta=8.0)),
    vgg13_MobileNetV2=dict(criterion=dict(beta=6.0)),
    ResNet50_MobileNetV2=dict(criterion=dict(beta=8.0)),
    resnet32x4_MobileNetV2=dict(criterion=dict(beta=8.0)),
    resnet32x4_ShuffleV1=dict(criterion=dict(beta=8.0)),
    resnet32x4_ShuffleV2=dict(criterion=dict(beta=8.0)),
    wrn_40_2_ShuffleV1=dict(criterion=dict(beta=8.0)),
    imagenet_resnet34_resnet18=dict(
        warmup_epochs=0, criterion=dict(beta=0.5, temperature=1.0, scales=(1, 2))
    ),
    imagenet_resnet50_mobilenetv1=dict(warmup_epochs=0, criterion=dict(beta=2.0, temperature=1.0)),
)
by_pair = {name: dict(distiller=dict(terms=dict(sdd=term))) for name, term in _terms.items()}
