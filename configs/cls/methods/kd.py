r"""KD (arXiv:1503.02531), with mdistiller's weights for CIFAR. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/kd.py
"""

distiller = dict(
    task_weight=0.1,
    terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"), weight=0.9)),
)
