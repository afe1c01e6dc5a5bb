r"""ReviewKD (arXiv:2104.09044) as KnowledgeReview runs it between torchvision's networks:

python tools/cls_train.py configs/cls/data/cifar100_224.py \
    configs/cls/pairs/cifar100_224_resnet50_mobilenet_v2.py \
    configs/cls/methods/reviewkd_torchvision.py

Five maps of each network, all before their activation: of a ResNet the ends of all stages and of
its last block but one, of MobileNetV2 the expanded maps of blocks 3, 6, 13 and 17 and the last map.
No pooled vector, no warm-up; the weight is the pair's, and so are fusion blocks of 256 channels for
MobileNetV2, of 512 for others. KnowledgeReview means the same, but

- MobileNetV2's ReLU6 works in place on what it has stored: it learns from maps cut to [0, 6];
- of a ResNet it takes away the ReLU after the last block but one, which makes it another network
  than the one that was pretrained.

Here hooks copy what comes by, and no network is changed. To try weights, run with
--cfg-options distiller.terms.reviewkd.weight=3.0 and so on.
"""

_base_ = "reviewkd.py"

distiller = dict(
    _delete_=True,
    terms=dict(
        reviewkd=dict(
            criterion=dict(type="kd_core.criteria.reviewkd.ReviewKD"),
            student=["@preact[:-1]", "@preact_blocks[-2:]"],
            teacher=["@preact[:-1]", "@preact_blocks[-2:]"],
            weight=7.0,
        )
    ),
)
by_pair = {
    name: dict(distiller=dict(terms=dict(reviewkd=term))) for name, term in _base_._terms.items()
}
