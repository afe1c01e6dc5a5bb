r"""FT (arXiv:1802.04977): first its paraphraser, then the student. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/ft.py
"""

phases = dict(
    paraphrase=dict(
        distiller=dict(
            train_student=False,
            terms=dict(
                paraphrase=dict(
                    criterion=dict(type="kd_core.criteria.ft.Paraphraser"),
                    student=[],
                    teacher="@stages[-1]",
                )
            ),
        ),
        optimizer=dict(lr=0.01),
        schedule=dict(type="kd_core.training.schedule.constant"),
        trainer=dict(epochs=30),
    ),
    student=dict(
        distiller=dict(
            terms=dict(
                ft=dict(
                    criterion=dict(type="kd_core.criteria.ft.FT"),
                    student="@stages[-1]",
                    teacher="@stages[-1]",
                    weight=200.0,
                    weights="phase:paraphrase/criteria/paraphrase.pth",
                )
            ),
        ),
    ),
)
by_pair = {  # the paraphraser has the rate of the student
    name: dict(phases=dict(paraphrase=dict(optimizer=dict(lr=0.05))))
    for name in ("vgg13_vgg8", "ResNet50_vgg8")
}
