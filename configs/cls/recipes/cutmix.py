r"""CutMix (arXiv:1905.04899) after the usual crop; see mixup.py. It follows the data:

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/cutmix.py \
    configs/cls/networks/resnet20.py
python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/cutmix.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_ens.py
"""

data = dict(
    augment=[
        dict(type="kd_cls.data.augment.CropFlip"),
        dict(type="kd_cls.data.augment.CutMix"),
    ]
)
