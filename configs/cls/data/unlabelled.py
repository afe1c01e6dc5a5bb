r"""Your own images without labels: all below data/photos, flat or in folders.

python tools/cls_train.py configs/cls/data/unlabelled.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/pkt.py
"""

data = dict(type="kd_cls.data.unlabelled", root="data/photos", image_size=224, batch_size=64)
optimizer = dict(type="torch.optim.SGD", lr=0.02, momentum=0.9, weight_decay=1e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=30)
