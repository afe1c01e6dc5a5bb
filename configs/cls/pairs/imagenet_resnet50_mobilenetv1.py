r"""ResNet50 teaches MobileNetV1 on ImageNet; hyper-parameters as published.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet50_mobilenetv1.py configs/cls/methods/dkd.py
"""

pair = "imagenet_resnet50_mobilenetv1"
student = dict(network=dict(type="kd_cls.models.build_model", name="MobileNetV1"))
teacher = dict(network=dict(type="torchvision.models.resnet50", weights="IMAGENET1K_V1"))
