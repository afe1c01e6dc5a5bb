r"""AFD (arXiv:2102.02973), together with KD. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/afd.py
"""

distiller = dict(
    terms=dict(
        kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"), weight=0.9),
        afd=dict(
            criterion=dict(type="kd_core.criteria.afd.AFD"),
            student="@blocks",
            teacher="@blocks",
            weight=200.0,
        ),
    ),
)
by_pair = dict(
    resnet110_resnet20=dict(distiller=dict(terms=dict(afd=dict(teacher="@blocks[1::2]")))),
    resnet110_resnet32=dict(distiller=dict(terms=dict(afd=dict(teacher="@blocks[1::2]")))),
)
