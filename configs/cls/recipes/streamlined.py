r"""Streamlined KD's recipe for CIFAR-100: weak and strong images, rate 0.1 for every student.

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/skd.py \
    configs/cls/recipes/streamlined.py

The rest is the recipe of data/cifar100.py: batch 64, weight decay 5e-4, 240 epochs, a tenth of the
rate after 150, 180 and 210. Not comparable with other tables, see weak_strong.py; and within its
own, the authors' rows of OFD and CRD are of connectors that were never trained. Their teachers and
baselines go back to the best epoch on the test set after every epoch; here nothing is chosen.
"""

_base_ = "weak_strong.py"

optimizer = dict(lr=0.1)
