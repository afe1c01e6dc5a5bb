r"""UNIC's loss (arXiv:2408.05088) with one teacher, without labels. Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/unic.py

The classifier of the student is not trained; distiller.task_weight=1.0 adds the labels. Of vision
transformers the authors compare the class token and the patch tokens, ['@cls', '@tokens'], of the
student before its last norm.
"""

trainer = dict(find_unused_parameters=True)  # of the classifier, with several processes
distiller = dict(
    task_weight=0.0,
    terms=dict(
        unic=dict(
            criterion=dict(type="kd_core.criteria.unic.UNIC"),
            student=["@pooled", "@map"],
            teacher=["@pooled", "@map"],
        )
    ),
)
