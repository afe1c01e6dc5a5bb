r"""resnet20 with option-A shortcuts alone, as in "Label Optimization": a teacher, or the baseline.

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_optimization.py configs/cls/networks/resnet20_a.py
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="resnet20_a"))
