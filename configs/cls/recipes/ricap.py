r"""RICAP (arXiv:1811.09030) after the usual crop; see mixup.py. It follows the data:

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/ricap.py \
    configs/cls/networks/resnet20.py
python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/ricap.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_ens.py
"""

data = dict(
    augment=[
        dict(type="kd_cls.data.augment.CropFlip"),
        dict(type="kd_cls.data.augment.RICAP"),
    ]
)
