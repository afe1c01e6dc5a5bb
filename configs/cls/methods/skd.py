r"""SKD (Streamlined Knowledge Distillation, CVPR 2026). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/skd.py

The authors' code has 0.1 and 0.9 since 2026-03 and had 0.5 and 0.5 before:
--cfg-options distiller.task_weight=0.5 distiller.terms.skd.weight=0.5
"""

distiller = dict(
    task_weight=0.1,
    terms=dict(skd=dict(criterion=dict(type="kd_core.criteria.skd.SKD"), weight=0.9)),
)
