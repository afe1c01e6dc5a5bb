r"""Maps by squared errors (LightlyTrain's second distillation). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/dense_mse.py
"""

distiller = dict(
    task_weight=0,  # without labels; 1 learns them too
    terms=dict(
        dense_mse=dict(
            criterion=dict(type="kd_core.criteria.dense_mse.DenseMSE"),
            student="@map",
            teacher="@map",
        )
    ),
)
trainer = dict(find_unused_parameters=True)  # the student's own classifier is not trained
