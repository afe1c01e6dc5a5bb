r"""resnet20 with one embedding a class, for several labels an image; any network can be inside.

python tools/cls_train.py configs/cls/data/digit_mosaics.py \
    configs/cls/networks/label_wise_resnet20.py
"""

student = dict(
    network=dict(
        type="kd_cls.models.label_wise.LabelWise",
        network=dict(type="kd_cls.models.build_model", name="resnet20"),
    )
)
