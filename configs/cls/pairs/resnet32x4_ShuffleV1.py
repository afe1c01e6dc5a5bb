r"""resnet32x4 teaches ShuffleV1 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/resnet32x4_ShuffleV1.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "resnet32x4_ShuffleV1"
student = dict(network=dict(type="kd_cls.models.build_model", name="ShuffleV1"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/resnet32x4.py"],
)
optimizer = dict(lr=0.01)
