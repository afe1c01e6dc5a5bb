r"""DeiT III-Small teaches DeiT-Tiny on ImageNet, both timm's: ViTKD's smallest pair.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_deit3_small_deit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/nkd.py configs/cls/methods/vitkd.py

Both have 14x14 patches. The teacher normalises images as it was trained.
"""

pair = "imagenet_deit3_small_deit_tiny"
student = dict(
    network=dict(type="timm.create_model", model_name="deit_tiny_patch16_224"),
    size=224,  # its position embedding knows no other
)
teacher = dict(
    network=dict(
        type="timm.create_model", model_name="deit3_small_patch16_224.fb_in1k", pretrained=True
    ),
    size=224,
)
