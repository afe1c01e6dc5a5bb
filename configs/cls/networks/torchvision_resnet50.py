r"""torchvision's pretrained ResNet50 with a new head, fine-tuned on your images.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/networks/torchvision_resnet50.py
"""

student = dict(network=dict(type="torchvision.models.resnet50", weights="DEFAULT"), new_head=True)
