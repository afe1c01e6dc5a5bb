r"""The strong baseline (arXiv:1903.07071): BNNeck, softmax and triplet, PK batches, warm-up.

Without its centre loss, whose weight is 5e-4. Composes with networks, and with pairs and methods,
where it makes the student's recipe this one. For networks other than ResNets, such as OSNet, add
student.network.last_stride=None:

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/networks/resnet50.py \
    configs/reid/recipes/bag_of_tricks.py
"""

data = dict(
    batch_size=64,
    instances=4,
    augment=[
        dict(type="kd_core.data.augment.CropFlip", padding=10),
        dict(type="kd_reid.data.augment.RandomErasing"),
    ],
)
student = dict(
    network=dict(last_stride=1),
    bnneck=True,
    label_smoothing=0.1,
    fixed_base_epochs=0,
    metric_losses=dict(triplet=dict(type="kd_reid.losses.BatchHardTriplet", margin=0.3)),
)
evaluation = dict(distance="cosine")
optimizer = dict(_delete_=True, type="torch.optim.Adam", lr=3.5e-4, weight_decay=5e-4)
schedule = dict(
    _delete_=True,
    type="kd_core.training.schedule.multi_step",
    milestones=[40, 70],
    warmup_epochs=10,
)
trainer = dict(epochs=120, eval_every=10, find_unused_parameters=False)
