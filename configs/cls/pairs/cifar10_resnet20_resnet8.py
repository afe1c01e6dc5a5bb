r"""resnet20 teaches resnet8 on a fifth of CIFAR-10: the measured table of the main README.

python tools/cls_train.py configs/cls/data/cifar10_small.py \
    configs/cls/pairs/cifar10_resnet20_resnet8.py configs/cls/methods/dkd.py --seeds 0 1 2
"""

pair = "cifar10_resnet20_resnet8"
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
teacher = dict(
    config=[
        "{{ fileDirname }}/../data/cifar10_small.py",
        "{{ fileDirname }}/../networks/resnet20.py",
    ],
)
