r"""VkD (arXiv:2403.06213) as its authors train a DeiT with a distillation token. Compose with data,
pair and recipe:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_regnety_160_deit_tiny.py configs/cls/recipes/deit.py \
    configs/cls/methods/vkd_deit.py

The class token's head learns the labels, the distillation token's the teacher's probabilities at
temperature 1, and the mean of the patch tokens its vector; all weights are 1. The rate is the
authors' for batch 1024, without warm-up, down to 5e-6. They mix images too (mixup 0.8, cutmix 1.0),
which is left out: the class token's term needs one label for each image.
"""

_base_ = "vkd.py"

distiller = dict(
    task_weight=0.0,  # it would train the mean of both heads
    terms=dict(
        class_token=dict(
            criterion=dict(type="kd_core.criteria.soft_label.LabelSmoothing", epsilon=0.1),
            student="head",
        ),
        distillation_token=dict(
            criterion=dict(type="kd_core.criteria.kd.KD", temperature=1.0), student="head_dist"
        ),
    ),
)
optimizer = dict(lr=1e-3)
schedule = dict(warmup_epochs=0)
