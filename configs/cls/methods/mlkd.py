r"""MLKD (CVPR 2023) with one view of each image, as in the code of SKD (see skd.py). Compose:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/mlkd.py
"""

distiller = dict(
    task_weight=0.5,
    terms=dict(mlkd=dict(criterion=dict(type="kd_core.criteria.mlkd.MLKD"), weight=0.5)),
)
