r"""resnet50_fc512 of torchreid, from weights trained on ImageNet, which torchreid downloads.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/resnet50.py \
    configs/reid/networks/resnet50_fc512.py
"""

student = dict(
    network=dict(type="kd_reid.models.build_model", name="resnet50_fc512", pretrained=True)
)
