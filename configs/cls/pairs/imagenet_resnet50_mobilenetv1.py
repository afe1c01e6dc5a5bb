r"""ResNet50 teaches MobileNetV1 on ImageNet; hyper-parameters as published.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet50_mobilenetv1.py configs/cls/methods/dkd.py
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="MobileNetV1"))
teacher = dict(network=dict(type="torchvision.models.resnet50", weights="IMAGENET1K_V1"))
tuned = dict(
    dkd=dict(warmup_epochs=0, criterion=dict(beta=2.0, temperature=1.0)),
    sdd=dict(warmup_epochs=0, criterion=dict(beta=2.0, temperature=1.0)),
    sd_nkd=dict(warmup_epochs=0, criterion=dict(beta=2.0, temperature=1.0)),
    # The authors' width; mdistiller names it, but fuses 512.
    reviewkd=dict(weight=8.0, criterion=dict(max_mid_channel=256)),
    catkd=dict(weight=10.0, criterion=dict(resolution=2, normalize=True)),
)
