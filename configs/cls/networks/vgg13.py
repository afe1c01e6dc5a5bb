"""vgg13 alone: a teacher, or the baseline of a student.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/networks/vgg13.py
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="vgg13"))
