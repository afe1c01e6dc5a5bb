r"""A queue of teacher vectors (LightlyTrain's first distillation). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/queue_kl.py
"""

distiller = dict(
    task_weight=0,  # without labels; 1 learns them too
    terms=dict(
        queue_kl=dict(
            criterion=dict(type="kd_core.criteria.queue_kl.QueueKL", queue_size=None),
            student="@pooled",
            teacher="@pooled",
        )
    ),
)
trainer = dict(find_unused_parameters=True)  # the student's own classifier is not trained
