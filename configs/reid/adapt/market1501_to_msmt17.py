r"""KDSS (arXiv:2009.05972): train on Market-1501, then adapt to MSMT17 without its labels.

python tools/reid_train.py configs/reid/adapt/market1501_to_msmt17.py

The paper's values, with one student in the place of three; needs pip install 'kd-reid[adapt]'. The
distances of all images of MSMT17 are matrices of 4 GB, of which three or four exist at a time, on
the GPU where there is one.
"""

_market1501 = dict(type="kd_reid.data.market1501", instances=4)
_msmt17 = dict(
    type="kd_reid.adaptation.unlabelled",
    of="kd_reid.data.public",
    arguments=dict(name="msmt17"),
    iterations=400,
    instances=4,
)
_augment = [
    dict(type="kd_core.data.augment.CropFlip", padding=10),
    dict(type="kd_reid.data.augment.RandomErasing"),
]

data = dict(batch_size=64)
student = dict(
    network=dict(type="kd_reid.models.build_model", name="resnet50", last_stride=1),
    bnneck=True,
    label_smoothing=0.1,
)
evaluation = dict(distance="cosine")
optimizer = dict(type="torch.optim.Adam", lr=3.5e-4, weight_decay=5e-4)
phases = dict(
    source=dict(
        data={**_market1501, "augment": _augment},
        student=dict(
            network=dict(pretrained=True),
            metric_losses=dict(triplet=dict(type="kd_reid.losses.BatchHardTriplet", margin=0.3)),
        ),
        schedule=dict(
            type="kd_core.training.schedule.multi_step", milestones=[40, 70], warmup_epochs=10
        ),
        trainer=dict(epochs=80, eval_every=10),
    ),
    adapt=dict(
        data={
            **_msmt17,
            "augment": [dict(type="kd_core.data.augment.Views", views=[_augment, _augment])],
        },
        student=dict(weights="phase:source/student.pth", adaptation=dict()),
        schedule=dict(type="kd_core.training.schedule.constant"),
        trainer=dict(epochs=20, eval_every=5, ema=0.999, ema_warmup=True),
    ),
)
