r"""The longer recipe of "Label Enhancement", of the rows with a plus in its table: 350 epochs. It
follows the data:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_enhancement_plus.py configs/cls/pairs/resnet110_resnet20.py \
    configs/cls/methods/aug_sl.py

Aug-En-SL+ and Aug-KD-SL+:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_enhancement_plus.py configs/cls/recipes/mixup.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_ens.py
python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_enhancement_plus.py configs/cls/recipes/mixup.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_kd.py
"""

_base_ = "label_enhancement.py"

schedule = dict(milestones=[150, 200, 250, 300])
trainer = dict(epochs=350)
