r"""CRD (arXiv:1910.10699) as mdistiller runs it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/crd_imagenet.py
"""

_base_ = "crd.py"

data = dict(batch_size=256)
optimizer = dict(lr=0.1)
