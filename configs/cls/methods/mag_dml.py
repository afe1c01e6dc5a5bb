r"""DML with two codes of the pooled vectors (arXiv:2108.06681): networks teach one another at three
granularities while all of them, codes too, start from scratch. Compose with data and network:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet20.py configs/cls/methods/mag_dml.py

The authors' code averages the divergence over classes too, so that it hardly acts:
distiller.reduction=elementwise reproduces that.
"""

_base_ = "dml.py"

distiller = dict(widths=[64, 256])
