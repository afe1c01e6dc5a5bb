"""torchvision's ResNet18 learns a zoo network's maps: python tools/cls_train.py THIS_FILE."""

data = dict(type="kd_cls.data.digits", batch_size=32)
student = dict(network=dict(type="torchvision.models.resnet18"))
teacher = dict(config="configs/demo/teacher.py")
distiller = dict(
    terms=dict(
        hint=dict(
            criterion=dict(type="kd_core.criteria.fitnet.FitNet"),
            student=["layer1", "layer2"],
            teacher=["layer3", "layer3"],
            weight=10.0,
        )
    )
)
optimizer = dict(type="torch.optim.SGD", lr=0.01, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=10)
