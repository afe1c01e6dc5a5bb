r"""Theia (arXiv:2407.20179). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/theia.py
"""

distiller = dict(
    task_weight=0,  # without labels; 1 learns them too
    terms=dict(
        theia=dict(
            criterion=dict(type="kd_core.criteria.theia.Theia"), student="@map", teacher="@map"
        )
    ),
)
trainer = dict(find_unused_parameters=True)  # the student's own classifier is not trained
