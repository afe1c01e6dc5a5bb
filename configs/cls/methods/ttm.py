r"""TTM (arXiv:2402.11148). Compose with data and pair; see below on its numbers:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/ttm.py

Gamma and weight are those of the authors' example, vgg13 to vgg8. They tuned both for each pair and
did not publish the values: choose yours on a validation split, data.val_fraction=0.1.
"""

distiller = dict(terms=dict(ttm=dict(criterion=dict(type="kd_core.criteria.ttm.TTM"), weight=45.0)))
