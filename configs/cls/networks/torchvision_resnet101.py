r"""torchvision's pretrained ResNet101 with a new head, fine-tuned on your images.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/networks/torchvision_resnet101.py

From random weights, on ImageNet, add student.weights=random:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/networks/torchvision_resnet101.py --cfg-options student.weights=random
"""

student = dict(network=dict(type="torchvision.models.resnet101", weights="DEFAULT"), new_head=True)
