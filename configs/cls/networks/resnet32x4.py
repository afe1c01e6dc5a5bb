"""resnet32x4 alone: a teacher, or the baseline of a student.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/networks/resnet32x4.py
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="resnet32x4"))
