"""The demo's student with DKD (arXiv:2203.08679), from the demo's teacher.

python tools/cls_train.py configs/demo/dkd.py
"""

_base_ = "student.py"

teacher = dict(config="{{ fileDirname }}/teacher.py")
distiller = dict(
    terms=dict(dkd=dict(criterion=dict(type="kd_core.criteria.dkd.DKD", beta=2.0), warmup_epochs=5))
)
