r"""DIST (arXiv:2205.10536) with its authors' values for ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/dist_imagenet.py
"""

distiller = dict(
    terms=dict(dist=dict(criterion=dict(type="kd_core.criteria.dist.DIST"), weight=2.0))
)
