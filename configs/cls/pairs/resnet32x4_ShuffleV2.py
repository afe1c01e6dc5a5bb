r"""resnet32x4 teaches ShuffleV2 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/resnet32x4_ShuffleV2.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "resnet32x4_ShuffleV2"
student = dict(network=dict(type="kd_cls.models.build_model", name="ShuffleV2"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/resnet32x4.py"],
)
optimizer = dict(lr=0.01)
