r"""SD-KD (arXiv:2403.13512). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/sd_kd.py
"""

distiller = dict(
    task_weight=0.1,
    terms=dict(
        sd_kd=dict(
            criterion=dict(type="kd_core.criteria.sdd.SDD", base="kd"),
            student="@map",
            teacher="@map",
            weight=0.9,
        )
    ),
)
by_pair = dict(
    resnet32x4_resnet8x4=dict(
        distiller=dict(terms=dict(sd_kd=dict(criterion=dict(scales=(1, 2)))))
    ),
    imagenet_resnet34_resnet18=dict(
        distiller=dict(terms=dict(sd_kd=dict(criterion=dict(scales=(1, 2)))))
    ),
)
