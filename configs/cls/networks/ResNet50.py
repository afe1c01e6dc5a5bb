"""ResNet50 alone: a teacher, or the baseline of a student.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/networks/ResNet50.py
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="ResNet50"))
