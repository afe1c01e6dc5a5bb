r"""NKD (arXiv:2303.13005) as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/nkd_imagenet.py

With ResNet50 and MobileNetV1 they clip gradients:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet50_mobilenetv1.py configs/cls/methods/nkd_imagenet.py \
    --cfg-options trainer.clip_norm=5.0
"""

data = dict(batch_size=256)
optimizer = dict(lr=0.1)
distiller = dict(terms=dict(nkd=dict(criterion=dict(type="kd_core.criteria.nkd.NKD"))))
