r"""MLKD with two views for 480 epochs: its authors' recipe on CIFAR-100 for the student
MobileNetV2, and for ShuffleV1 taught by wrn_40_2. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/vgg13_MobileNetV2.py configs/cls/methods/mlkd_views_480.py
"""

_base_ = "mlkd_views.py"

optimizer = dict(lr=0.01)
trainer = dict(epochs=480)  # the rate falls after 150, 180 and 210 all the same
