r"""pcb_p6 of torchreid (PCB, arXiv:1711.09349): six parts, at its authors' 384x128, from weights
trained on ImageNet, which torchreid downloads.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/resnet50.py \
    configs/reid/networks/pcb_p6.py
"""

student = dict(
    network=dict(type="kd_reid.models.build_model", name="pcb_p6", pretrained=True), size=[384, 128]
)
