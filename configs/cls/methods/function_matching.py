r"""Function matching (arXiv:2106.05237, "A good teacher is patient and consistent"): the teacher's
probabilities of mixed images, which student and teacher see alike, no labels, and a long schedule.
Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/function_matching.py

Batch, rate, decay and clipping are those of the authors' short runs on small sets, and a warm-up of
about as many steps; how many epochs a set can use is to be tried, as is the temperature, theirs are
1 to 10. The crop is made here; of files that are read in each epoch it was made before, so put a
flip in its place:

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/pairs/torchvision_resnet50_resnet18.py configs/cls/methods/function_matching.py \
    --cfg-options data.augment.0.type=kd_cls.data.augment.Flip

With several teachers give each a term; the losses add up. Two, in a file after this one:

    teacher = None  # that of the pair
    teachers = dict(
        one=dict(network=..., weights="one.pth"), two=dict(network=..., weights="two.pth")
    )
    distiller = dict(
        terms=dict(
            kd=dict(source="one"),
            kd_two=dict(
                criterion=dict(type="kd_core.criteria.kd.KD", temperature=1.0), source="two"
            ),
        )
    )
"""

data = dict(
    batch_size=512,
    augment=[
        dict(type="kd_cls.data.augment.CropFlip"),
        dict(type="kd_cls.data.augment.RolledMixup"),
    ],
)
distiller = dict(
    task_weight=0,
    terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD", temperature=1.0))),
)
optimizer = dict(
    _delete_=True,
    type="torch.optim.AdamW",
    lr=0.003,
    weight_decay=0.1,  # theirs is 3e-4 a step; PyTorch multiplies it by the rate
    decay_norms_and_biases=False,
)
schedule = dict(_delete_=True, type="kd_core.training.schedule.cosine", warmup_epochs=16)
trainer = dict(epochs=1200, clip_norm=1.0)
