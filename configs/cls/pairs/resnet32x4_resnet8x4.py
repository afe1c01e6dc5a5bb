r"""resnet32x4 teaches resnet8x4 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/resnet32x4_resnet8x4.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "resnet32x4_resnet8x4"
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8x4"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/resnet32x4.py"],
)
