r"""OFA-KD (arXiv:2310.19444) between any two architectures. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/ofa.py

The student's logits and those of a head behind each of four places (`@exits`: the last four of stem
and stages; of a ViT of 12 blocks, after 2, 4, 10 and 12) learn the teacher's logits, all at weight
1. The authors take eps 1 for CIFAR-100, 1.5 for ImageNet, and for the heads of maps the larger of
both networks' pooled widths: criterion.width of every stage. Of a ViT's tokens those of the image
are taken, and their mean is classified; to classify the class token name the blocks without a
layout, and how many tokens come first: student="blocks.1", criterion.prefix=1. A Swin's heads take
its maps, with student="@exits[-4]:tokens" its tokens.
"""

_criterion = dict(type="kd_core.criteria.ofa.OFAStage", width=512)

distiller = dict(
    terms=dict(
        ofa=dict(criterion=dict(type="kd_core.criteria.ofa.OFA")),
        ofa_stage1=dict(criterion=dict(_criterion, stage=1), student="@exits[-4]"),
        ofa_stage2=dict(criterion=dict(_criterion, stage=2), student="@exits[-3]"),
        ofa_stage3=dict(criterion=dict(_criterion, stage=3), student="@exits[-2]"),
        ofa_stage4=dict(criterion=dict(_criterion, stage=4), student="@exits[-1]"),
    ),
)
by_pair = dict(
    imagenet_deit_tiny_resnet18=dict(  # eps of its authors' example for ImageNet
        distiller=dict(
            terms={
                name: dict(criterion=dict(eps=1.5))
                for name in ("ofa", *(f"ofa_stage{stage}" for stage in (1, 2, 3, 4)))
            }
        )
    ),
)
