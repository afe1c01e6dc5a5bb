r"""The recipe of "Label Enhancement for Better Model Generalization and Calibration" (CVPR 2022
submission 8511): RepDistiller's. It is what data/cifar100.py and data/cifar10.py have already, and
follows other data; before a pair or network, which may have a rate of its own (ShuffleNets and
MobileNets have 0.01):

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_enhancement.py configs/cls/pairs/resnet110_resnet20.py \
    configs/cls/methods/sl.py
"""

data = dict(batch_size=64)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[150, 180, 210])
trainer = dict(epochs=240)
