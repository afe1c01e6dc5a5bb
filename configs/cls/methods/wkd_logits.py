r"""WKD-L (arXiv:2412.08139): first how far the teacher's classes are apart, by its logits of the
training images, then the student. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/wkd_logits.py

The distances are kept beside the teacher, for every student and seed. They want images as in
evaluation: `augment=[]` sees to that where the set is in memory. Of files that are read in each
epoch name the `transform` of that phase too, as for ImageNet below. wkd_classifier.py needs neither
phase nor images.
"""

phases = dict(
    distances=dict(
        data=dict(augment=[], drop_last=False),
        distiller=dict(
            train_student=False,
            task_weight=0,
            terms=dict(
                distances=dict(
                    criterion=dict(type="kd_core.criteria.class_distances.ClassDistances"),
                    student=[],
                )
            ),
        ),
        schedule=dict(type="kd_core.training.schedule.constant"),
        trainer=dict(epochs=1),
    ),
    student=dict(
        distiller=dict(
            terms=dict(
                # The true class has a term of its own, because only the other one's weight falls.
                target=dict(criterion=dict(type="kd_core.criteria.nkd.NKD", gamma=0.0)),
                wkd_logits=dict(
                    criterion=dict(
                        type="kd_core.criteria.wkd.WKDLogits", target_weight=0.0, temperature=8.0
                    ),
                    weight=200.0,
                    decay_after=150,
                    weights="phase:distances/criteria/distances.pth",
                ),
            )
        ),
    ),
)
_central = dict(
    type="torchvision.transforms.v2.Compose",
    transforms=[
        dict(type="torchvision.transforms.v2.Resize", size=256),
        dict(type="torchvision.transforms.v2.CenterCrop", size=224),
    ],
)
_terms = dict(  # as published, by pair
    resnet32x4_resnet8x4=dict(weight=600.0),
    wrn_40_2_ShuffleV1=dict(weight=200.0, criterion=dict(temperature=6.0)),
    imagenet_resnet34_resnet18=dict(weight=30.0, decay_after=0, criterion=dict(temperature=2.0)),
    imagenet_resnet50_mobilenetv1=dict(weight=25.0, decay_after=0, criterion=dict(temperature=2.0)),
)
_distances = dict(
    imagenet_resnet34_resnet18=dict(data=dict(transform=_central)),
    imagenet_resnet50_mobilenetv1=dict(
        data=dict(transform=_central),
        distiller=dict(terms=dict(distances=dict(criterion=dict(sharpness=2.0)))),
    ),
)
by_pair = {
    name: dict(
        phases=dict(
            distances=_distances.get(name, {}),
            student=dict(distiller=dict(terms=dict(wkd_logits=term))),
        )
    )
    for name, term in _terms.items()
}
