r"""Streamlined KD's training set: every image twice an epoch, weakly and strongly augmented.

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/kd.py \
    configs/cls/recipes/weak_strong.py

An epoch is 100,000 images of CIFAR-100, so a run of 240 epochs takes twice the steps of other
tables and sees stronger augmentation: no number of it, nor any of Streamlined KD, compares with
theirs. Compare methods under this recipe with one another. The teacher's recipe is not changed.

Weak is crop and flip. Strong is that, RandAugment of two operations and a grey square of up to half
the side, as near as torchvision's transforms come to the authors' (theirs draw the magnitude of
each operation, posterize to one bit, and let the square hang over the edge). The two copies are
shuffled apart; MLKD and other methods that want both in one batch have methods/mlkd_views.py.
"""

data = dict(
    copies=2,
    augment=[
        dict(type="kd_cls.data.augment.CropFlip"),
        dict(
            type="kd_core.data.weak_strong.StrongCopies",
            augment=[
                dict(
                    type="kd_cls.data.augment.PerImage",
                    transform=dict(
                        type="torchvision.transforms.v2.Compose",
                        transforms=[
                            dict(type="torchvision.transforms.v2.RandAugment"),
                            dict(
                                type="torchvision.transforms.v2.RandomErasing",
                                p=1.0,
                                scale=(0.0, 0.25),
                                ratio=(1.0, 1.0),
                                value=[125, 123, 114],
                            ),
                        ],
                    ),
                ),
            ],
        ),
    ],
)
