r"""The STL-10 recipe of "Label Optimization": that of CIFAR, but images of 96 pixels that are not
rotated, and a rate that falls to a fifth. It follows the data:

python tools/cls_train.py configs/cls/data/stl10.py \
    configs/cls/recipes/label_optimization_stl10.py configs/cls/networks/resnet20_a.py
"""

_base_ = "label_optimization.py"

data = dict(augment=[dict(type="kd_cls.data.augment.CropFlip")])
schedule = dict(gamma=0.2)
