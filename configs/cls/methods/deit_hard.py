r"""DeiT's hard distillation by a token (arXiv:2012.12877). Compose with data, pair and recipe:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_regnety_160_deit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/deit_hard.py

For timm's distilled DeiTs: the class token's head learns the labels, the distillation token's the
classes that the teacher decides for, each by half. Predictions are the mean of both heads, so the
task's own loss, which would train that mean, is off.
"""

distiller = dict(
    task_weight=0.0,
    terms=dict(
        class_token=dict(
            criterion=dict(type="kd_core.criteria.soft_label.LabelSmoothing", epsilon=0.0),
            student="head",
            weight=0.5,
        ),
        distillation_token=dict(
            criterion=dict(type="kd_core.criteria.hard_label.HardLabel"),
            student="head_dist",
            weight=0.5,
        ),
    ),
)
