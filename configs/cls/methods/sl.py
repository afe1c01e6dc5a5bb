r"""SL: the teacher's soft label in the ground truth's place, as the code of "Label Enhancement for
Better Model Generalization and Calibration" (CVPR 2022 submission 8511) has it. Compose with data
and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet56_resnet20.py configs/cls/methods/sl.py

Its predecessor, "Label Optimization" (ICCV 2021 submission 8285), has temperature 3 and a weight
of 0.1, with the factor temperature² 0.9 in all:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet56_resnet20.py configs/cls/methods/sl.py --cfg-options \
    distiller.terms.sl.criterion.temperature=3.0 distiller.terms.sl.weight=0.1

So does recipes/label_optimization.py, with the rest of its recipe. Its "use_gt", 1 added to the
teacher's logit of the true class, is distiller.terms.sl.criterion.ground_truth=true.
"""

distiller = dict(
    task_weight=0.0,
    terms=dict(sl=dict(criterion=dict(type="kd_core.criteria.soft_label.SoftLabel"))),
)
by_recipe = dict(
    label_optimization=dict(
        distiller=dict(terms=dict(sl=dict(weight=0.1, criterion=dict(temperature=3.0))))
    ),
)
