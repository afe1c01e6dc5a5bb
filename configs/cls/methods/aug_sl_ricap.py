r"""Aug-SL with RICAP (arXiv:1811.09030): see aug_sl.py. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet110_resnet20.py configs/cls/methods/aug_sl_ricap.py
"""

_base_ = ["sl.py", "../recipes/ricap.py"]
