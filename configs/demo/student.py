"""The demo's student, trained on a few labels with cross-entropy alone.

python tools/cls_train.py configs/demo/student.py
"""

data = dict(
    type="kd_cls.data.digits",
    train_per_class=100,
    limit_per_class=8,
    batch_size=16,
)
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=2)
trainer = dict(epochs=40, eval_every=5, loggers=[])
