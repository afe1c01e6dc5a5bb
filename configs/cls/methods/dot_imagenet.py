r"""DOT (arXiv:2307.08436) on KD, as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/dot_imagenet.py
"""

_base_ = "kd_imagenet.py"

trainer = dict(step=dict(type="kd_core.training.dot.DOTStep", delta=0.09))
