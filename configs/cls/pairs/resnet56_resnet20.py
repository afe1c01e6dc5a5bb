r"""resnet56 teaches resnet20 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/resnet56_resnet20.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "resnet56_resnet20"
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet20"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/resnet56.py"],
)
