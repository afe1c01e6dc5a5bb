r"""torchreid's OSNet recipe: softmax, AMSGrad, 150 epochs, steps of 60.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/osnet.py \
    configs/reid/networks/osnet_x1_0.py
"""

data = dict(batch_size=64)
student = dict(label_smoothing=0.1, fixed_base_epochs=10)
optimizer = dict(type="torch.optim.Adam", lr=0.0015, weight_decay=5e-4, amsgrad=True)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[60, 120])
trainer = dict(epochs=150, eval_every=10, find_unused_parameters=True)
