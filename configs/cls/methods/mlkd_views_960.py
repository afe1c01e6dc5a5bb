r"""MLKD with two views for 960 epochs: its authors' recipe on CIFAR-100 for ShuffleV1 and ShuffleV2
taught by resnet32x4. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_ShuffleV2.py configs/cls/methods/mlkd_views_960.py
"""

_base_ = "mlkd_views_480.py"

trainer = dict(epochs=960)
