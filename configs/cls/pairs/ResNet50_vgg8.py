r"""ResNet50 teaches vgg8 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/ResNet50_vgg8.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "ResNet50_vgg8"
student = dict(network=dict(type="kd_cls.models.build_model", name="vgg8"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/ResNet50.py"],
)
