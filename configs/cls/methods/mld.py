r"""MLD, the part of L2D (arXiv:2308.06453) on logits: for several labels an image, any networks.

python tools/cls_train.py configs/cls/data/digit_mosaics.py \
    configs/cls/pairs/label_wise_resnet20_resnet8.py configs/cls/methods/mld.py
"""

distiller = dict(terms=dict(mld=dict(criterion=dict(type="kd_core.criteria.l2d.MLD"))))
