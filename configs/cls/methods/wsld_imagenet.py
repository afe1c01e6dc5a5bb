r"""WSLD (arXiv:2102.00650) as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/wsld_imagenet.py
"""

data = dict(batch_size=256)
optimizer = dict(lr=0.1, nesterov=True)
distiller = dict(
    terms=dict(
        wsld=dict(criterion=dict(type="kd_core.criteria.wsld.WSLD", alpha=2.5, temperature=2.0))
    )
)
