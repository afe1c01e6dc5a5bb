"""The demo's student with KD (arXiv:1503.02531) on the identities, from the demo's teacher.

python tools/reid_train.py configs/demo/reid_distilled.py
"""

_base_ = "reid_student.py"

teacher = dict(config="{{ fileDirname }}/reid_teacher.py")
distiller = dict(
    terms=dict(
        kd=dict(
            criterion=dict(type="kd_core.criteria.kd.KD"),
            student="@logits",
            teacher="@logits",
            weight=4.0,
        ),
    )
)
