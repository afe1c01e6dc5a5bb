r"""OFD (arXiv:1904.01866) as mdistiller runs it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet50_mobilenetv1.py configs/cls/methods/ofd_imagenet.py

Its values are those of ResNet50 and MobileNetV1, where it compares the deepest three stages; for
ResNet34 and ResNet18 it has none.
"""

_base_ = "ofd.py"

data = dict(batch_size=128)
optimizer = dict(lr=0.05)
distiller = dict(
    terms=dict(ofd=dict(student="@preact[-3:]", teacher="@preact[-3:]", weight=1e-4)),
)
