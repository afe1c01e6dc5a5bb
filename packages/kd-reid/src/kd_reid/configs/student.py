"""The demo's student, trained alone on drawn pedestrians.

python tools/reid_train.py configs/demo/reid_student.py
"""

data = dict(
    type="kd_reid.data.generated",
    image_size=(64, 32),
    batch_size=64,
    augment=[
        dict(type="kd_core.data.augment.CropFlip", padding=2),
        dict(type="kd_reid.data.augment.RandomErasing"),
    ],
)
student = dict(
    network=dict(type="kd_reid.models.build_model", name="osnet_x0_25"),
    label_smoothing=0.1,
)
optimizer = dict(type="torch.optim.Adam", lr=0.0015, weight_decay=5e-4, amsgrad=True)
schedule = dict(type="kd_core.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=15, eval_every=5, tensorboard=False)
