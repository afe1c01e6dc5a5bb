r"""DKD (arXiv:2203.08679). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/dkd.py
"""

distiller = dict(
    terms=dict(dkd=dict(criterion=dict(type="kd_core.criteria.dkd.DKD"), warmup_epochs=20)),
)
