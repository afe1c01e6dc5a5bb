r"""vgg13 teaches MobileNetV2 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/vgg13_MobileNetV2.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "vgg13_MobileNetV2"
student = dict(network=dict(type="kd_cls.models.build_model", name="MobileNetV2"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/vgg13.py"],
)
optimizer = dict(lr=0.01)
