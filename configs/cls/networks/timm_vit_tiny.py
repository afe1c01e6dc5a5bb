r"""timm's ViT-Tiny of 16-pixel patches, from scratch: a baseline, or a student without second head.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/networks/timm_vit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/label_smoothing.py

Behind a pair it takes the place of the pair's student; it learns from logits by any method, such as
methods/kd.py, methods/hard_label.py and methods/skd.py:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_regnety_160_deit_tiny.py configs/cls/networks/timm_vit_tiny.py \
    configs/cls/recipes/deit.py configs/cls/methods/kd.py --cfg-options \
    distiller.task_weight=0.9 distiller.terms.kd.weight=0.1 \
    distiller.terms.kd.criterion.temperature=3.0
"""

student = dict(
    network=dict(type="timm.create_model", model_name="vit_tiny_patch16_224"),
    size=224,  # its position embedding knows no other
)
