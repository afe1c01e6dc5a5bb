r"""A network alone in KnowledgeReview: a teacher, or the baseline of a student; smoothed labels.

python tools/cls_train.py configs/cls/data/cifar100_224.py \
    configs/cls/networks/torchvision_mobilenet_v2.py configs/cls/recipes/knowledge_review_alone.py

It starts from the weights that torchvision published first, as the reference did; the networks'
files take the newest. Published top-1, of the best epoch on the test set: MobileNetV2 80.62,
ResNet18 80.54, ResNet50 83.54, ResNet152 85.49, ResNeXt101 32x8d 85.72.
"""

student = dict(network=dict(weights="IMAGENET1K_V1"), label_smoothing=0.1)
