"""A data set of your own, by import path: see docs/own_data.md."""

data = dict(
    type="kd_cls.data.dataset",
    train=dict(type="examples.own_dataset.Shapes", count=64),
    test=dict(type="examples.own_dataset.Shapes", count=32, start=1000),
    image_size=32,
    augment=[dict(type="kd_cls.data.augment.CropFlip")],
)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9)
schedule = dict(type="kd_core.training.schedule.cosine")
trainer = dict(epochs=10)
