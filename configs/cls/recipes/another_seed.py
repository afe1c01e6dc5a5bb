r"""Seed 1 and bf16, for a second teacher that differs from the first by chance alone.

python tools/cls_train.py configs/cls/data/cifar10_small.py configs/cls/networks/resnet20.py \
    configs/cls/recipes/another_seed.py
"""

seed = 1
trainer = dict(precision="bf16", channels_last=True)
