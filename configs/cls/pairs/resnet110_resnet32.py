r"""resnet110 teaches resnet32 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/resnet110_resnet32.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="resnet32"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/resnet110.py"],
)
tuned = dict(
    dkd=dict(criterion=dict(beta=2.0)),
    sdd=dict(criterion=dict(beta=2.0)),
    sd_nkd=dict(criterion=dict(beta=2.0)),
    reviewkd=dict(weight=1.0),
    catkd=dict(weight=1.8),
    afd=dict(teacher="@blocks[1::2]"),
)
