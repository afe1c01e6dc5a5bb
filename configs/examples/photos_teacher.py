"""A network of timm, pretrained on ImageNet, fine-tuned on the photos: see docs/photos.md.

python tools/cls_train.py configs/examples/photos_teacher.py
"""

_base_ = "photos.py"

student = dict(network=dict(type="timm:resnet18", pretrained=True), new_head=True)
