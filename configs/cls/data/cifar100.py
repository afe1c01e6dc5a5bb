"""CIFAR-100 with the recipe of mdistiller and RepDistiller: 240 epochs, batch 64.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/networks/resnet20.py
"""

data = dict(type="kd_cls.data.cifar100", root="data", batch_size=64)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[150, 180, 210])
trainer = dict(epochs=240)
