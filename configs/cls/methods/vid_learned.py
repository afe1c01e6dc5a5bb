r"""VID with variances that are trained, as in the paper and RepDistiller. Compose:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/vid_learned.py
"""

_base_ = "vid.py"

distiller = dict(terms=dict(vid=dict(criterion=dict(learn_variance=True))))
