r"""MAG+KD: mag.py with the authors' weights for no other method. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/mag_kd.py
"""

_base_ = "mag.py"

phases = dict(
    student=dict(
        distiller=dict(task_weight=0.2, terms=dict(mag=dict(criterion=dict(kd_weight=0.8))))
    )
)
