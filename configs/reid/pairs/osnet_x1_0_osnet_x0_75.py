r"""osnet_x1_0 teaches osnet_x0_75; without weights, the teacher is trained on Market-1501 first.

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_75.py configs/reid/methods/kd.py \
    --cfg-options teacher.weights=FILE
"""

_base_ = "../recipes/osnet.py"

pair = "osnet_x1_0_osnet_x0_75"
student = dict(network=dict(type="kd_reid.models.build_model", name="osnet_x0_75", pretrained=True))
teacher = dict(
    config=[
        "{{ fileDirname }}/../data/market1501.py",
        "{{ fileDirname }}/../recipes/osnet.py",
        "{{ fileDirname }}/../networks/osnet_x1_0.py",
    ],
)
