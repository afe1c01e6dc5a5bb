"""Photos in a CSV list, and how networks are trained on them: see docs/photos.md.

python tools/cls_train.py configs/examples/photos_teacher.py
"""

data = dict(
    type="kd_cls.data.image_list",
    csv="data/photos/photos.csv",
    image_size=64,
    batch_size=16,
    augment=[],  # no flips: arrows that point left are not those that point right
)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=1e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=20)
