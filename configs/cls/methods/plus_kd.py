r"""KD on top of another method: weight 1 beside the task's own 1. Compose with data, pair, method:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/at.py \
    configs/cls/methods/plus_kd.py
"""

distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
