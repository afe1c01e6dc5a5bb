r"""UNIC's loss (arXiv:2408.05088) of the last map alone, position by position; see unic.py.
Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/unic_tokens.py
"""

trainer = dict(find_unused_parameters=True)  # of the classifier, with several processes
distiller = dict(
    task_weight=0.0,
    terms=dict(
        unic=dict(
            criterion=dict(type="kd_core.criteria.unic.UNICTokens"),
            student="@map",
            teacher="@map",
        )
    ),
)
