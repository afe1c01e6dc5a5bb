r"""Hard-label distillation (DeiT, arXiv:2012.12877): half with the label, half with the class that
the teacher decides for. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/hard_label.py
"""

distiller = dict(
    task_weight=0.5,
    terms=dict(
        hard_label=dict(criterion=dict(type="kd_core.criteria.hard_label.HardLabel"), weight=0.5)
    ),
)
