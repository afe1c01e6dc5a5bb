r"""DIST (arXiv:2205.10536) as its authors run it on CIFAR-100. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/dist.py
"""

distiller = dict(
    terms=dict(
        dist=dict(criterion=dict(type="kd_core.criteria.dist.DIST", temperature=4.0), weight=2.0)
    )
)
