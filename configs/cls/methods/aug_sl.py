r"""Aug-SL: the teacher's soft label of mixed images, by mixup; teacher and student see the same.
From "Label Enhancement for Better Model Generalization and Calibration" (CVPR 2022 submission
8511). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet110_resnet20.py configs/cls/methods/aug_sl.py

aug_sl_cutmix.py and aug_sl_ricap.py mix otherwise; which of the three its table has is not said.
The commands of its page write `--method sl`, but the code compares with `SL`: so written, they
train without the teacher, on mixed images with the labels of unmixed ones, and nothing warns. With
several teachers (Aug-En-SL, Aug-KD-SL) and on other data: see recipes/mixup.py.
"""

_base_ = ["sl.py", "../recipes/mixup.py"]
