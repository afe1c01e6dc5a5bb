r"""WKD-L (arXiv:2412.08139) without a phase: how far classes are apart is read off the weights of
the teacher's last layer. See wkd_logits.py; compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/wkd_classifier.py
"""

distiller = dict(
    terms=dict(
        target=dict(criterion=dict(type="kd_core.criteria.nkd.NKD", gamma=0.0)),
        wkd_logits=dict(
            criterion=dict(
                type="kd_core.criteria.wkd.WKDLogits",
                cost="classifier",
                target_weight=0.0,
                temperature=8.0,
            ),
            weight=200.0,
            decay_after=150,
        ),
    )
)
