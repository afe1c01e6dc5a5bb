r"""ResNet18 teaches ShuffleV2 on Tiny-ImageNet, as in DOT; the teacher is trained first.

python tools/cls_train.py configs/cls/data/tiny_imagenet.py \
    configs/cls/pairs/tiny_imagenet_ResNet18_ShuffleV2.py configs/cls/methods/dot.py
"""

pair = "tiny_imagenet_ResNet18_ShuffleV2"
student = dict(network=dict(type="kd_cls.models.build_model", name="ShuffleV2"))
teacher = dict(
    config=[
        "{{ fileDirname }}/../data/tiny_imagenet.py",
        "{{ fileDirname }}/../networks/ResNet18.py",
    ],
)
