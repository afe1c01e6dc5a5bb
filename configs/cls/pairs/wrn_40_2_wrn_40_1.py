r"""wrn_40_2 teaches wrn_40_1 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/wrn_40_2_wrn_40_1.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

pair = "wrn_40_2_wrn_40_1"
student = dict(network=dict(type="kd_cls.models.build_model", name="wrn_40_1"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/wrn_40_2.py"],
)
