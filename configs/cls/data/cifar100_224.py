r"""CIFAR-100 scaled to 224 pixels, for networks pretrained on ImageNet: KnowledgeReview's recipe.

python tools/cls_train.py configs/cls/data/cifar100_224.py \
    configs/cls/networks/torchvision_resnet18.py configs/cls/recipes/knowledge_review_alone.py

The set stays on the device as 32 pixels (180 MB) and every batch is scaled there, in training to
256 and in evaluation to 224. AutoAugment is torchvision's, image by image: have a GPU for it.
"""

_base_ = "../recipes/knowledge_review.py"

data = dict(
    type="kd_cls.data.cifar100",
    root="data",
    image_size=224,
    augment=[
        dict(type="kd_cls.data.augment.Resize", size=256),
        dict(type="kd_cls.data.augment.CropFlip", padding=0, size=224),
        dict(
            type="kd_cls.data.augment.PerImage",
            transform=dict(
                type="torchvision.transforms.v2.AutoAugment",
                policy=dict(type="torchvision.transforms.AutoAugmentPolicy", value="cifar10"),
            ),
        ),
    ],
)
