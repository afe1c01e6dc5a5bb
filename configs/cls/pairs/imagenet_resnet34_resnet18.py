r"""ResNet34 teaches ResNet18 on ImageNet, both torchvision's; hyper-parameters as published.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/dkd.py
"""

student = dict(network=dict(type="torchvision.models.resnet18"))
teacher = dict(network=dict(type="torchvision.models.resnet34", weights="IMAGENET1K_V1"))
tuned = dict(
    dkd=dict(warmup_epochs=0, criterion=dict(beta=0.5, temperature=1.0)),
    sdd=dict(warmup_epochs=0, criterion=dict(beta=0.5, temperature=1.0, scales=(1, 2))),
    sd_kd=dict(criterion=dict(scales=(1, 2))),
    sd_nkd=dict(warmup_epochs=0, criterion=dict(beta=0.5, temperature=1.0, scales=(1, 2))),
    reviewkd=dict(weight=1.0),
    catkd=dict(weight=0.5, criterion=dict(resolution=4)),
)
