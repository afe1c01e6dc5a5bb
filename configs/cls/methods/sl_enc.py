r"""SL-Enc: soft labels perturbed by what a small network, trained beside the student, makes of
noise. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet56_resnet20.py configs/cls/methods/sl_enc.py

Temperature and weight are those of "Label Optimization" (ICCV 2021 submission 8285), whose code of
it does not run; its own setting is recipes/label_optimization.py, with the teacher resnet32_a.
"""

distiller = dict(
    task_weight=0.0,
    terms=dict(
        sl_enc=dict(
            criterion=dict(type="kd_core.criteria.sl_enc.SoftLabelEncoder", temperature=3.0),
            weight=0.1,
        )
    ),
)
