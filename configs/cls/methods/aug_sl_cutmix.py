r"""Aug-SL with CutMix (arXiv:1905.04899): see aug_sl.py. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet110_resnet20.py configs/cls/methods/aug_sl_cutmix.py
"""

_base_ = ["sl.py", "../recipes/cutmix.py"]
