r"""AB (arXiv:1811.03233) for 30 epochs, then the task alone. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/ab.py
"""

phases = dict(
    init=dict(
        distiller=dict(
            task_weight=0,
            terms=dict(
                ab=dict(
                    criterion=dict(type="kd_core.criteria.ab.AB"),
                    student="@preact",
                    teacher="@preact",
                )
            ),
        ),
        schedule=dict(type="kd_core.training.schedule.constant"),
        # The classifier takes no part, which DDP must know.
        trainer=dict(epochs=30, find_unused_parameters=True),
    ),
    train=dict(student=dict(weights="phase:init/student.pth")),
)
by_pair = dict(  # this student has one more stage: its deepest is left out
    resnet32x4_MobileNetV2=dict(
        phases=dict(init=dict(distiller=dict(terms=dict(ab=dict(student="@preact[:3]")))))
    ),
)
