r"""torchreid's other OSNet recipe: 250 epochs, cosine schedule.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/osnet_cosine.py \
    configs/reid/networks/osnet_x1_0.py
"""

_base_ = "osnet.py"

schedule = dict(_delete_=True, type="kd_core.training.schedule.cosine")
trainer = dict(epochs=250)
