r"""DeiT's soft distillation by a token (arXiv:2012.12877). Compose with data, pair and recipe:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_regnety_160_deit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/deit_soft.py

As deit_hard.py, but the distillation token's head learns the teacher's probabilities. Weights 0.9
and 0.1 and temperature 3 are those of the paper.
"""

_base_ = "deit_hard.py"

distiller = dict(
    terms=dict(
        class_token=dict(weight=0.9),
        distillation_token=dict(
            criterion=dict(_delete_=True, type="kd_core.criteria.kd.KD", temperature=3.0),
            weight=0.1,
        ),
    ),
)
