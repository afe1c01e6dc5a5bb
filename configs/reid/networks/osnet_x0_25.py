r"""osnet_x0_25 of torchreid, from weights trained on ImageNet, which torchreid downloads.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x0_25.py
"""

student = dict(network=dict(type="kd_reid.models.build_model", name="osnet_x0_25", pretrained=True))
