r"""torchvision's pretrained MobileNetV2 with a new head, fine-tuned on your images.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/networks/torchvision_mobilenet_v2.py
"""

student = dict(
    network=dict(type="torchvision.models.mobilenet_v2", weights="DEFAULT"), new_head=True
)
