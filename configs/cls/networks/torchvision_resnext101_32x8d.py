r"""torchvision's pretrained ResNeXt101 32x8d with a new head, fine-tuned on your images.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/networks/torchvision_resnext101_32x8d.py
"""

student = dict(
    network=dict(type="torchvision.models.resnext101_32x8d", weights="DEFAULT"), new_head=True
)
