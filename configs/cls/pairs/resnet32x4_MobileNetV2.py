r"""resnet32x4 teaches MobileNetV2 on CIFAR-100; without weights, the teacher is trained first.

python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/pairs/resnet32x4_MobileNetV2.py \
    configs/cls/methods/dkd.py --cfg-options teacher.weights=FILE
"""

student = dict(network=dict(type="kd_cls.models.build_model", name="MobileNetV2"))
teacher = dict(
    config=["{{ fileDirname }}/../data/cifar100.py", "{{ fileDirname }}/../networks/resnet32x4.py"],
)
optimizer = dict(lr=0.01)
tuned = dict(
    # The student has a stage more. The references leave out its shallowest in OFD and ReviewKD,
    # its deepest elsewhere.
    ofd=dict(student="@preact[-3:]"),
    reviewkd=dict(student=["@stages[-3:]", "@avgpool"]),
    at=dict(student="@stages[:3]"),
    nst=dict(student="@stages[:3]"),
    vid=dict(student="@stages[:3]"),
    ab=dict(student="@preact[:3]"),
    sdd=dict(criterion=dict(beta=8.0)),
    sd_nkd=dict(criterion=dict(beta=8.0)),
)
