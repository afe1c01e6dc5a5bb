r"""CLKD (arXiv:2211.14773). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/clkd.py
"""

distiller = dict(
    task_weight=0.1, terms=dict(clkd=dict(criterion=dict(type="kd_core.criteria.clkd.CLKD")))
)
