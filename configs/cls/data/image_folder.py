r"""Your own images: data/images/train/<class>/*.jpg and data/images/test/<class>/*.jpg.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/pairs/torchvision_resnet50_resnet18.py configs/cls/methods/dkd.py
"""

data = dict(type="kd_cls.data.image_folder", root="data/images", image_size=224, batch_size=64)
optimizer = dict(type="torch.optim.SGD", lr=0.02, momentum=0.9, weight_decay=1e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=30)
