r"""MGD (arXiv:2205.01529) as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/mgd.py
"""

distiller = dict(
    terms=dict(
        mgd=dict(
            criterion=dict(type="kd_core.criteria.mgd.MGD"),
            student="@stages[-1]",
            teacher="@stages[-1]",
            weight=7e-5,
        )
    ),
)
