"""The demo's student, trained alone on synthetic people.

python tools/reid_train.py configs/demo/reid_student.py
"""

data = dict(
    type="kd_reid.data.generated",
    image_size=(64, 32),
    batch_size=32,
    augment=[dict(type="kd_core.data.augment.CropFlip", padding=2)],
)
student = dict(
    network=dict(type="kd_reid.models.build_model", name="osnet_x0_25"),
    label_smoothing=0.1,
)
optimizer = dict(type="torch.optim.Adam", lr=0.005, weight_decay=5e-4, amsgrad=True)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=12, eval_every=4, loggers=[])
