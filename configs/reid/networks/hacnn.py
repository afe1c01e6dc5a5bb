r"""hacnn of torchreid (HA-CNN, arXiv:1802.08122); it takes 160x64 only and starts at random.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/resnet50.py \
    configs/reid/networks/hacnn.py
"""

student = dict(network=dict(type="kd_reid.models.build_model", name="hacnn"), size=[160, 64])
