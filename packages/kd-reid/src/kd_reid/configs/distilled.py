"""The demo's student with RKD on embeddings and KD on identities, from the demo's teacher.

python tools/reid_train.py configs/demo/reid_distilled.py
"""

_base_ = "student.py"

teacher = dict(recipe="{{ fileDirname }}/teacher.py")
distiller = dict(
    terms=dict(
        kd=dict(
            criterion=dict(type="kd_core.criteria.kd.KD"), student="@logits", teacher="@logits"
        ),
    )
)
