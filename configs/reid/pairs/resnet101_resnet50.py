r"""resnet101 teaches resnet50; without weights, the teacher is trained on Market-1501 first.

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/resnet101_resnet50.py configs/reid/methods/kd.py \
    --cfg-options teacher.weights=FILE
"""

_base_ = "../recipes/resnet50.py"

pair = "resnet101_resnet50"
student = dict(network=dict(type="kd_reid.models.build_model", name="resnet50", pretrained=True))
teacher = dict(
    config=[
        "{{ fileDirname }}/../data/market1501.py",
        "{{ fileDirname }}/../recipes/resnet50.py",
        "{{ fileDirname }}/../networks/resnet101.py",
    ],
)
