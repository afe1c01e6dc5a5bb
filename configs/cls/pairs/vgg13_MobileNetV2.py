r"""vgg13 teaches MobileNetV2 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/vgg13_MobileNetV2.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="MobileNetV2"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/vgg13.py"],
)
optimizer = dict(lr=0.01)
tuned = dict(
    dkd=dict(criterion=dict(beta=6.0)),
    sdd=dict(criterion=dict(beta=6.0)),
    sd_nkd=dict(criterion=dict(beta=6.0)),
    catkd=dict(weight=15.0, criterion=dict(resolution=2, normalize=True)),
)
