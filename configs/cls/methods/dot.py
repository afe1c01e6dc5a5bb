r"""DOT (arXiv:2307.08436) on top of KD: two gradients, two momenta. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/dot.py
"""

distiller = dict(
    task_weight=0.1,
    terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"), weight=0.9)),
)
trainer = dict(step=dict(type="kd_core.training.dot.DOTStep", delta=0.075))
