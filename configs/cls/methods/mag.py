r"""MAG (arXiv:2108.06681), by itself or on top of another method: first codes that describe the
frozen teacher, then the student learns them and its logits. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/mag.py

On top of FitNet, AT, SP, VID, RKD, CRD, AFDS or another method without phases, name its file first:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/at.py configs/cls/methods/mag.py

The codes are kept beside the teacher and reused by every student of it. As the KD inside helps too,
compare with the method and KD (plus_kd.py), see configs/cls/tables/granularity.py.
"""

phases = dict(
    analysis=dict(
        distiller=dict(
            _delete_=True,
            train_student=False,
            task_weight=0,
            terms=dict(
                analysis=dict(
                    criterion=dict(type="kd_core.criteria.granularity.SelfAnalysis"),
                    student=[],
                    teacher=["output", "@pooled"],
                )
            ),
        ),
        optimizer=dict(
            _delete_=True, type="torch.optim.SGD", lr=0.01, momentum=0.9, weight_decay=5e-4
        ),
        schedule=dict(
            _delete_=True, type="kd_core.training.schedule.multi_step", milestones=[30, 45]
        ),
        trainer=dict(epochs=60),
    ),
    student=dict(
        distiller=dict(
            terms=dict(
                mag=dict(
                    criterion=dict(type="kd_core.criteria.granularity.MultiGranularity"),
                    student=["output", "@pooled"],
                    teacher=["output", "@pooled"],
                    weights="phase:analysis/criteria/analysis.pth",
                )
            ),
        ),
    ),
)
