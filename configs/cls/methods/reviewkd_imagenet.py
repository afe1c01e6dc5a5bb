r"""ReviewKD (arXiv:2104.09044) as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/reviewkd_imagenet.py

The student is tapped before the activation too, and nothing is warmed up. For MobileNetV1 the
authors fuse maps of 256 channels: add the option
distiller.terms.reviewkd.criterion.max_mid_channel=256; mdistiller fuses 512, as without it.
"""

distiller = dict(
    terms=dict(
        reviewkd=dict(
            criterion=dict(type="kd_core.criteria.reviewkd.ReviewKD"),
            student=["@preact", "@avgpool"],
            teacher=["@preact", "@avgpool"],
        )
    ),
)
