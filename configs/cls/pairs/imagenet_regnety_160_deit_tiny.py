r"""RegNetY-16GF teaches DeiT-Tiny on ImageNet, both timm's: Streamlined KD's transformer pair.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_regnety_160_deit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/deit_hard.py

The teacher normalises images as it was trained. For a student without second head put
networks/timm_vit_tiny.py behind this file. With methods/skd.py the student learns from the mean of
its heads. The losses of this pair are missing from the authors' code; those here are DeiT's.
"""

pair = "imagenet_regnety_160_deit_tiny"
student = dict(
    network=dict(type="timm.create_model", model_name="deit_tiny_distilled_patch16_224"),
    size=224,  # its position embedding knows no other
)
teacher = dict(
    network=dict(type="timm.create_model", model_name="regnety_160.tv2_in1k", pretrained=True)
)
