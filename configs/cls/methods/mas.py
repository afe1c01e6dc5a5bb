r"""MAS (arXiv:2108.06681): as mag.py, but the logits to learn are the mean of the teacher's own and
those decoded from its two codes. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/rkd.py configs/cls/methods/mas.py
"""

_base_ = "mag.py"

phases = dict(student=dict(distiller=dict(terms=dict(mag=dict(criterion=dict(stable=True))))))
