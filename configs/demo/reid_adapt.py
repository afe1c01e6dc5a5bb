"""Adaptation (arXiv:2009.05972) to synthetic people that are seen at night and have no labels.

The phase `source` trains with labels by day, the next one adapts what came out. Of its metrics,
those that begin with source_ are from before.

python tools/reid_train.py configs/demo/reid_adapt.py --seeds 0 1 2
"""

_day = dict(type="kd_reid.data.generated", num_cameras=6, images_per_camera=3)
_night = dict(
    type="kd_reid.adaptation.unlabelled",
    of="kd_reid.data.generated",
    arguments=dict(domain="night", drawing_seed=1),
    iterations=50,
)

data = dict(
    image_size=(64, 32),
    batch_size=32,
    augment=[dict(type="kd_core.data.augment.CropFlip", padding=2)],
)
student = dict(
    network=dict(type="kd_reid.models.build_model", name="osnet_x0_25"),
    bnneck=True,
    label_smoothing=0.1,
)
evaluation = dict(distance="cosine")
optimizer = dict(type="torch.optim.Adam", lr=0.005, weight_decay=5e-4, amsgrad=True)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=12, eval_every=4, loggers=[])
phases = dict(
    source=dict(data=_day),
    adapt=dict(
        data=_night,
        student=dict(weights="phase:source/student.pth", adaptation=dict()),
        optimizer=dict(lr=1e-3, amsgrad=False),
        schedule=dict(_delete_=True, type="kd_core.training.schedule.constant"),
        trainer=dict(epochs=8, eval_every=4, ema=0.99, ema_warmup=True),
    ),
)
