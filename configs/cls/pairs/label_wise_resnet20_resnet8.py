r"""resnet20 teaches resnet8, both with one embedding a class. For several labels an image:

python tools/cls_train.py configs/cls/data/digit_mosaics.py \
    configs/cls/pairs/label_wise_resnet20_resnet8.py configs/cls/methods/l2d.py
"""

pair = "label_wise_resnet20_resnet8"
student = dict(
    network=dict(
        type="kd_cls.models.label_wise.LabelWise",
        network=dict(type="kd_cls.models.build_model", name="resnet8"),
    )
)
teacher = dict(
    config=[
        "{{ fileDirname }}/../data/digit_mosaics.py",
        "{{ fileDirname }}/../networks/label_wise_resnet20.py",
    ],
)
