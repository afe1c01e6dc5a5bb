r"""MLKD (CVPR 2023) with a weak and a strong view of each image. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/mlkd_views.py

Weights and learning rate are the authors' for CIFAR-100; the strong view is torchvision's
RandAugment. Students MobileNetV2, ShuffleV1 and ShuffleV2 have a rate and epochs of their own.
"""

data = dict(
    augment=[
        dict(
            type="kd_cls.data.augment.Views",
            views=[
                [dict(type="kd_cls.data.augment.CropFlip")],
                [
                    dict(type="kd_cls.data.augment.CropFlip"),
                    dict(
                        type="kd_cls.data.augment.PerImage",
                        transform=dict(type="torchvision.transforms.v2.RandAugment"),
                    ),
                ],
            ],
        )
    ]
)
student = dict(views_apart=True)  # one after the other; False makes one batch of both
optimizer = dict(lr=0.025)
distiller = dict(
    task_weight=0.2,  # of the mean over both views: 0.1 of the sum of their two cross-entropies
    terms=dict(
        mlkd=dict(
            criterion=dict(
                type="kd_core.criteria.mlkd.MLKD", temperatures=(4.0, 3.0, 5.0, 2.0, 6.0)
            ),
            weight=0.9,
        )
    ),
)
_epochs = dict(  # the authors', by pair; the rate falls after 150, 180 and 210 all the same
    vgg13_MobileNetV2=480,
    ResNet50_MobileNetV2=480,
    resnet32x4_MobileNetV2=480,
    wrn_40_2_ShuffleV1=480,
    resnet32x4_ShuffleV1=960,
    resnet32x4_ShuffleV2=960,
)
by_pair = {
    name: dict(optimizer=dict(lr=0.01), trainer=dict(epochs=epochs))
    for name, epochs in _epochs.items()
}
