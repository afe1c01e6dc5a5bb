r"""Your images: a pretrained ResNet50 is fine-tuned first, then teaches a pretrained ResNet18.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/pairs/torchvision_resnet50_resnet18.py configs/cls/methods/dkd.py
"""

pair = "torchvision_resnet50_resnet18"
student = dict(network=dict(type="torchvision.models.resnet18", weights="DEFAULT"), new_head=True)
teacher = dict(
    config=[
        "{{ fileDirname }}/../data/image_folder.py",
        "{{ fileDirname }}/../networks/torchvision_resnet50.py",
    ],
)
