r"""MAG (arXiv:2108.06681) on embeddings and identity logits: first codes that describe the frozen
teacher, then the student learns them. Compose with data and pair, and another method before it:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_75.py configs/reid/methods/rkd.py \
    configs/reid/methods/mag.py

The authors published neither code nor losses for re-identification: widths, temperatures and recipe
of the codes are theirs for classification.
"""

_base_ = "../../cls/methods/mag.py"

_taps = ["@logits", "@embedding"]
phases = dict(
    analysis=dict(distiller=dict(terms=dict(analysis=dict(teacher=_taps)))),
    student=dict(distiller=dict(terms=dict(mag=dict(student=_taps, teacher=_taps)))),
)
