r"""MAS+KD: mas.py with the authors' weights for no other method. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/mas_kd.py
"""

_base_ = "mag_kd.py"

phases = dict(student=dict(distiller=dict(terms=dict(mag=dict(criterion=dict(stable=True))))))
