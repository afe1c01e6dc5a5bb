r"""SEED (arXiv:2101.04731). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/seed.py
"""

distiller = dict(
    task_weight=0,  # without labels; 1 learns them too
    terms=dict(
        seed=dict(
            # The default of its authors' code, 1e-4, leaves of the target the own vector alone.
            criterion=dict(
                type="kd_core.criteria.queue_kl.SEED", queue_size=None, teacher_temperature=0.01
            ),
            student="@pooled",
            teacher="@pooled",
        )
    ),
)
trainer = dict(find_unused_parameters=True)  # the student's own classifier is not trained
