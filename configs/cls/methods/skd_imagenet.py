r"""SKD (CVPR 2026) as its authors' script runs it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/skd_imagenet.py
"""

_base_ = "skd.py"

data = dict(batch_size=64)
optimizer = dict(lr=0.1)
distiller = dict(terms=dict(skd=dict(criterion=dict(temperature=1.0))))
