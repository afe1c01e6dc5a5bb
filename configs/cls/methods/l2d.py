r"""L2D (arXiv:2308.06453), for several labels an image. Compose with such data and a pair:

python tools/cls_train.py configs/cls/data/digit_mosaics.py \
    configs/cls/pairs/label_wise_resnet20_resnet8.py configs/cls/methods/l2d.py

Both networks have one embedding a class: kd_cls.models.label_wise.LabelWise around any network.
The authors sum the binary cross-entropy over a batch of 64; here it is a mean over batch and
classes, so that 64 * 10 make it theirs. With another number of classes, change task_weight.
"""

distiller = dict(
    task_weight=640.0,
    terms=dict(
        l2d=dict(
            criterion=dict(type="kd_core.criteria.l2d.L2D"),
            student=["output", "@label_embeddings"],
            teacher=["output", "@label_embeddings"],
        )
    ),
)
