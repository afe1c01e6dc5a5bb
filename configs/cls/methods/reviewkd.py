r"""ReviewKD (arXiv:2104.09044) as its authors run it on CIFAR-100. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/reviewkd.py
"""

distiller = dict(
    terms=dict(
        reviewkd=dict(
            criterion=dict(type="kd_core.criteria.reviewkd.ReviewKD"),
            student=["@stages", "@avgpool"],
            teacher=["@preact", "@avgpool"],
            weight=5.0,
            warmup_epochs=20,
        )
    ),
)
