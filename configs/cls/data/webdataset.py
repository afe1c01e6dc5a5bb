r"""Your own images in WebDataset shards: data/shards/train-*.tar and data/shards/test-*.tar.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/webdataset.py \
    configs/cls/pairs/torchvision_resnet50_resnet18.py configs/cls/methods/dkd.py
"""

data = dict(
    type="kd_cls.data.webdataset",
    train="data/shards/train-*.tar",
    test="data/shards/test-*.tar",
    image_size=224,
    batch_size=64,
)
optimizer = dict(type="torch.optim.SGD", lr=0.02, momentum=0.9, weight_decay=1e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=30)
