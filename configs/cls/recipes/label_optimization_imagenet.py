r"""ImageNet as "Label Optimization" and "Label Enhancement" train on it: batch 256, rate 0.1, 100
epochs, and a tenth of the rate after 30, 60 and 90. It follows the data:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/recipes/label_optimization_imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/sl.py

The milestones are those of the first, which leaves the rest open; batch, rate, decay and epochs are
those of the second.
"""

data = dict(batch_size=256)
optimizer = dict(type="torch.optim.SGD", lr=0.1, momentum=0.9, weight_decay=1e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[30, 60, 90])
trainer = dict(epochs=100)
