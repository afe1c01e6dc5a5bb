r"""NKD (arXiv:2303.13005) as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/nkd_imagenet.py
"""

distiller = dict(terms=dict(nkd=dict(criterion=dict(type="kd_core.criteria.nkd.NKD"))))
