"""Tiny-ImageNet with the recipe of DOT (arXiv:2307.08436): 200 epochs, batch 256.

python tools/cls_train.py configs/cls/data/tiny_imagenet.py configs/cls/networks/ResNet18.py
"""

data = dict(type="kd_cls.data.tiny_imagenet", root="data/tiny-imagenet-200", batch_size=256)
optimizer = dict(type="torch.optim.SGD", lr=0.2, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[60, 120, 160])
trainer = dict(epochs=200)
