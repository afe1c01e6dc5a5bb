r"""ImageNet with the recipe of mdistiller: 100 epochs, batch 512 over all GPUs.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/dkd.py
"""

data = dict(type="kd_cls.data.imagenet", root="data/imagenet", batch_size=512)
optimizer = dict(type="torch.optim.SGD", lr=0.2, momentum=0.9, weight_decay=1e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[30, 60, 90])
trainer = dict(epochs=100, channels_last=True)
