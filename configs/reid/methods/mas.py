r"""MAS (arXiv:2108.06681): as mag.py, but the logits to learn are the mean of the teacher's own and
those decoded from its two codes; with RKD it is the authors' MAS_RKD. Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/densenet121_resnet50.py configs/reid/methods/rkd.py \
    configs/reid/methods/mas.py
"""

_base_ = "mag.py"

phases = dict(student=dict(distiller=dict(terms=dict(mag=dict(criterion=dict(stable=True))))))
