r"""SimKD (arXiv:2203.14001); the student gets the teacher's classifier. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/simkd.py
"""

distiller = dict(
    task_weight=0,
    terms=dict(
        simkd=dict(
            criterion=dict(type="kd_core.criteria.simkd.SimKD"), student="@map", teacher="@map"
        )
    ),
)
trainer = dict(find_unused_parameters=True)  # the student's own classifier is not trained
