"""A hook of your own, by import path: python tools/cls_train.py THIS_FILE."""

data = dict(type="kd_cls.data.digits", batch_size=32)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(
    epochs=10,
    hooks=[dict(type="examples.own_hook.FreezeOnPlateau", part="conv1", patience=1)],
    loggers=[dict(type="kd_core.training.loggers.TensorBoardLog")],
)
