r"""KD (arXiv:1503.02531) as mdistiller weights it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/kd_imagenet.py
"""

distiller = dict(
    task_weight=0.5,
    terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD", temperature=1.0), weight=0.5)),
)
