r"""Function matching (arXiv:2106.05237) as its authors run it on ImageNet: batch 4096, 1200 epochs,
of which the rate grows for the first 5000 steps. See function_matching.py; compose with data and
pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py \
    configs/cls/methods/function_matching_imagenet.py

Their networks are BiT's, without BatchNorm.
"""

_base_ = "function_matching.py"

data = dict(
    batch_size=4096,
    augment=[
        dict(type="kd_cls.data.augment.Flip"),
        dict(type="kd_cls.data.augment.RolledMixup"),
    ],
)
optimizer = dict(lr=0.03, weight_decay=0.01)
