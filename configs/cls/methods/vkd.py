r"""VkD (arXiv:2403.06213) between networks of any kind. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/vkd.py

The student's vector is the mean of its last map, of a transformer the mean of the normalised patch
tokens; so is the teacher's. Needs neither labels nor logits. With the authors' losses for a DeiT:
vkd_deit.py.
"""

distiller = dict(
    terms=dict(
        vkd=dict(
            criterion=dict(type="kd_core.criteria.vkd.VkD"),
            student="@map:mean",
            teacher="@map:mean",
        )
    ),
)
