r"""MLKD with two views as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet50_mobilenetv1.py configs/cls/methods/mlkd_views_imagenet.py

The two views share their crop, which is made when the file is read. For ResNet18 the authors halve
the rate:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/mlkd_views_imagenet.py \
    --cfg-options optimizer.lr=0.1
"""

_base_ = "mlkd_views.py"

data = dict(
    augment=[
        dict(
            type="kd_cls.data.augment.Views",
            views=[
                [dict(type="kd_cls.data.augment.Flip")],
                [
                    dict(type="kd_cls.data.augment.Flip"),
                    dict(
                        type="kd_cls.data.augment.PerImage",
                        transform=dict(type="torchvision.transforms.v2.RandAugment"),
                    ),
                ],
            ],
        )
    ]
)
optimizer = dict(lr=0.2)
distiller = dict(
    task_weight=1.0,  # of the mean over both views: 0.5 of the sum of their two cross-entropies
    terms=dict(
        mlkd=dict(
            criterion=dict(
                temperatures=(1.0, 3.0, 5.0, 2.0, 6.0), strong_temperatures=(1.0, 3.0, 5.0)
            ),
            weight=0.5,
        )
    ),
)
