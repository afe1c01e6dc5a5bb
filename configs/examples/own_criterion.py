"""A criterion of your own, by import path: python tools/cls_train.py THIS_FILE."""

data = dict(type="kd_cls.data.digits", batch_size=32)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(config="configs/demo/teacher.py")
distiller = dict(
    terms=dict(
        direction=dict(
            criterion=dict(type="examples.own_criterion.DirectionDistance"),
            student="@pooled",
            teacher="@pooled",
            weight=5.0,
        )
    )
)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=10)
