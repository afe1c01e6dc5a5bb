"""STL-10: its 5,000 labelled images of 96 pixels, with the CIFAR recipe.

python tools/cls_train.py configs/cls/data/stl10.py configs/cls/networks/resnet20.py
"""

_base_ = "cifar100.py"

data = dict(_delete_=True, type="kd_cls.data.stl10", root="data", batch_size=64)
