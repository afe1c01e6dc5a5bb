"""A small student of the fine-tuned network: see docs/photos.md.

python tools/cls_train.py configs/examples/photos_student.py
"""

_base_ = "photos.py"

teacher = dict(network=dict(type="timm:resnet18"), weights="runs/photos_teacher")
student = dict(network=dict(type="kd_cls.models.build_model", name="resnet8"))
distiller = dict(terms=dict(kd=dict(criterion=dict(type="kd_core.criteria.kd.KD"))))
