r"""timm's DeiT-Tiny with a distillation token and a second head, from scratch (arXiv:2012.12877).

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/networks/timm_deit_tiny_distilled.py configs/cls/recipes/deit.py

Its logits are the mean of both heads, `head` and `head_dist`, which methods/deit_soft.py and
methods/deit_hard.py train apart.
"""

student = dict(
    network=dict(type="timm.create_model", model_name="deit_tiny_distilled_patch16_224"),
    size=224,  # its position embedding knows no other
)
