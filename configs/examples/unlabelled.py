"""A foundation model teaches a small network on photos without labels: see docs/unlabelled.md.

python tools/cls_train.py configs/examples/unlabelled.py
"""

data = dict(
    type="kd_cls.data.unlabelled",
    root="data/unlabelled",  # photos, flat or in folders
    evaluate_on="data/labelled",  # a few with labels, only to measure; leave it out without any
    image_size=96,
    batch_size=32,
)
teacher = dict(
    network=dict(type="timm:vit_small_patch16_224.dino", pretrained=True, img_size=96), size=96
)
student = dict(network=dict(type="timm:resnet18"))
distiller = dict(
    terms=dict(
        queue_kl=dict(
            criterion=dict(type="kd_core.criteria.queue_kl.QueueKL", queue_size=None),
            student="@pooled",
            teacher="@pooled",
        )
    )
)
optimizer = dict(type="torch.optim.AdamW", lr=1e-3, weight_decay=0.05)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=30)
