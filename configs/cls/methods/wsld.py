r"""WSLD (arXiv:2102.00650) as its authors run it on CIFAR-100. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/wsld.py
"""

distiller = dict(terms=dict(wsld=dict(criterion=dict(type="kd_core.criteria.wsld.WSLD"))))
