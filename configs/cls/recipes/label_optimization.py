r"""The recipe of "Label Optimization" (ICCV 2021 submission 8285) for CIFAR. It follows the data;
the networks are those with option-A shortcuts. First a teacher, then a student of its soft labels:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_optimization.py configs/cls/networks/resnet44_a.py \
    --work-dir runs/resnet44_a

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_optimization.py configs/cls/networks/resnet20_a.py \
    configs/cls/methods/sl.py --cfg-options \
    "teacher={'network': {'type': 'kd_cls.models.build_model', 'name': 'resnet44_a'}}" \
    teacher.weights=runs/resnet44_a/student.pth

Its KD is nearly plain cross-entropy: the divergence is divided by the number of classes, 100, too:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/recipes/label_optimization.py configs/cls/networks/resnet20_a.py \
    configs/cls/methods/kd.py --cfg-options distiller.task_weight=1.0 \
    distiller.terms.kd.weight=0.001 distiller.terms.kd.criterion.temperature=3.0 \
    "teacher={'network': {'type': 'kd_cls.models.build_model', 'name': 'resnet32_a'}}" \
    teacher.weights=FILE

Its code multiplies the rate by 0.1 after epoch 200 too, which is the last. The statistics are
ImageNet's, on all data.
"""

recipe = "label_optimization"
data = dict(
    batch_size=128,
    augment=[
        dict(type="kd_cls.data.augment.CropFlip"),
        dict(type="kd_cls.data.augment.Rotate", degrees=15),
    ],
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
)
optimizer = dict(type="torch.optim.SGD", lr=0.1, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[60, 120, 160])
trainer = dict(epochs=200)
