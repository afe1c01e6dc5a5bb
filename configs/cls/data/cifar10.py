"""CIFAR-10 with the recipe of CIFAR-100.

python tools/cls_train.py configs/cls/data/cifar10.py configs/cls/networks/resnet20.py
"""

_base_ = "cifar100.py"

data = dict(_delete_=True, type="kd_cls.data.cifar10", root="data", batch_size=64)
