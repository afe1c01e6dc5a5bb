r"""DeiT-Tiny teaches ResNet18 on ImageNet, both timm's: an example of OFA-KD's authors.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_deit_tiny_resnet18.py configs/cls/methods/ofa.py
"""

pair = "imagenet_deit_tiny_resnet18"
student = dict(network=dict(type="timm.create_model", model_name="resnet18"))
teacher = dict(
    network=dict(
        type="timm.create_model", model_name="deit_tiny_patch16_224.fb_in1k", pretrained=True
    ),
    size=224,  # its position embedding knows no other
)
