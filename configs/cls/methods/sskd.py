r"""SSKD (arXiv:2006.07114): first the teacher's head, then the student. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/sskd.py
"""

data = dict(
    augment=[
        dict(type="kd_cls.data.augment.CropFlip", flip=False),
        dict(type="kd_cls.data.augment.QuarterTurns"),
    ]
)
student = dict(task_views=1)
phases = dict(
    head=dict(
        distiller=dict(
            train_student=False,
            task_weight=0,
            terms=dict(
                head=dict(
                    criterion=dict(type="kd_core.criteria.sskd.SSKDHead"),
                    student=[],
                    teacher="@pooled",
                )
            ),
        ),
        optimizer=dict(lr=0.05),
        schedule=dict(type="kd_core.training.schedule.multi_step", milestones=[30, 45]),
        trainer=dict(epochs=60),
    ),
    student=dict(
        distiller=dict(
            task_weight=0.1,
            terms=dict(
                sskd=dict(
                    criterion=dict(type="kd_core.criteria.sskd.SSKD"),
                    student=["output", "@pooled"],
                    teacher=["output", "@pooled"],
                    weights="phase:head/criteria/head.pth",
                )
            ),
        ),
    ),
)
