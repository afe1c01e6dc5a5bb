r"""mixup (arXiv:1710.09412) after the usual crop, for CIFAR and STL-10. It follows the data. Alone,
the loss is that with both labels, by weight:

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/mixup.py \
    configs/cls/networks/resnet20.py

With a method, student and teacher see the same mixed image. Those of soft labels need no others:
methods/aug_sl.py is this with sl.py; Aug-En-SL and Aug-KD-SL are

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/mixup.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_ens.py
python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/recipes/mixup.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_kd.py

Beware of terms that read labels (DKD, NKD, WSLD, SDD): they get the class of one of the mixed
images only. KD, which reads none, is right. A list of augmentations replaces another, so this has
the crop too; where it was made before, as on ImageNet, put a flip in its place:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/recipes/mixup.py configs/cls/pairs/imagenet_resnet34_resnet18.py \
    configs/cls/methods/sl.py --cfg-options data.augment.0.type=kd_cls.data.augment.Flip
"""

data = dict(
    augment=[
        dict(type="kd_cls.data.augment.CropFlip"),
        dict(type="kd_cls.data.augment.Mixup"),
    ]
)
