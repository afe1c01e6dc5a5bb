r"""WTTM (arXiv:2402.11148). Compose with data and pair; see below on its numbers:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/wttm.py

Gamma and weight are those of the authors' example, which has CRD beside it. They tuned both for
each pair and did not publish the values: choose yours on a validation split, data.val_fraction=0.1.
"""

distiller = dict(
    terms=dict(wttm=dict(criterion=dict(type="kd_core.criteria.ttm.WTTM", gamma=0.2), weight=4.0))
)
