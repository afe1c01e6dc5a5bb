r"""NKD (arXiv:2303.13005) as its authors run it on CIFAR-100. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/nkd.py
"""

distiller = dict(
    terms=dict(
        nkd=dict(criterion=dict(type="kd_core.criteria.nkd.NKD", gamma=3.5, temperature=3.0))
    )
)
