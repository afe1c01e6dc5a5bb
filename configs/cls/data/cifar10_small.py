"""A fifth of CIFAR-10, as an image folder: what two CPU cores can train on in minutes.

python tools/cls_train.py configs/cls/data/cifar10_small.py configs/cls/networks/resnet20.py
"""

data = dict(
    type="kd_cls.data.image_folder",
    root="data/cifar10",
    image_size=32,
    limit_per_class=1000,
    batch_size=64,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
)
optimizer = dict(type="torch.optim.SGD", lr=0.1, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=30, eval_every=5)
