r"""ResNet34 teaches ResNet18 on ImageNet, both torchvision's; hyper-parameters as published.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/dkd.py
"""

pair = "imagenet_resnet34_resnet18"
student = dict(network=dict(type="torchvision.models.resnet18"))
teacher = dict(network=dict(type="torchvision.models.resnet34", weights="IMAGENET1K_V1"))
