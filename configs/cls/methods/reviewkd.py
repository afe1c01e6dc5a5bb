r"""ReviewKD (arXiv:2104.09044) as its authors run it on CIFAR-100. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/reviewkd.py
"""

distiller = dict(
    terms=dict(
        reviewkd=dict(
            criterion=dict(type="kd_core.criteria.reviewkd.ReviewKD"),
            student=["@stages", "@avgpool"],
            teacher=["@preact", "@avgpool"],
            weight=5.0,
            warmup_epochs=20,
        )
    ),
)
_terms = dict(  # as published, by pair; reviewkd_imagenet.py and reviewkd_torchvision.py too
    resnet56_resnet20=dict(weight=0.6),
    resnet110_resnet32=dict(weight=1.0),
    resnet32x4_resnet8x4=dict(weight=5.0),
    wrn_40_2_wrn_16_2=dict(weight=5.0),
    wrn_40_2_wrn_40_1=dict(weight=5.0),
    ResNet50_MobileNetV2=dict(weight=30.0),
    # The student has one more stage: its shallowest is left out.
    resnet32x4_MobileNetV2=dict(student=["@stages[-3:]", "@avgpool"]),
    resnet32x4_ShuffleV1=dict(weight=5.0),
    resnet32x4_ShuffleV2=dict(weight=8.0),
    wrn_40_2_ShuffleV1=dict(weight=5.0),
    imagenet_resnet34_resnet18=dict(weight=1.0),
    # The authors' width; mdistiller names it, but fuses 512.
    imagenet_resnet50_mobilenetv1=dict(weight=8.0, criterion=dict(max_mid_channel=256)),
    cifar100_224_resnet152_mobilenet_v2=dict(weight=8.0, criterion=dict(max_mid_channel=256)),
    cifar100_224_resnet152_resnet50=dict(weight=6.0),
    cifar100_224_resnet50_mobilenet_v2=dict(weight=7.0, criterion=dict(max_mid_channel=256)),
    cifar100_224_resnet50_resnet18=dict(weight=10.0),
    cifar100_224_resnext101_32x8d_mobilenet_v2=dict(
        weight=6.0, criterion=dict(max_mid_channel=256)
    ),
    cifar100_224_resnext101_32x8d_resnet50=dict(weight=6.0),
)
by_pair = {name: dict(distiller=dict(terms=dict(reviewkd=term))) for name, term in _terms.items()}
