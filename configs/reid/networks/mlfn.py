r"""mlfn of torchreid (arXiv:1803.09132); starts at random, or from student.backbone_weights=FILE.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/resnet50.py \
    configs/reid/networks/mlfn.py
"""

student = dict(network=dict(type="kd_reid.models.build_model", name="mlfn"))
