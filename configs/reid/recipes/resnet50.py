r"""torchreid's recipe of ResNet50 and the like: softmax, AMSGrad, 60 epochs, steps of 20.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/recipes/resnet50.py \
    configs/reid/networks/resnet50_fc512.py
"""

data = dict(batch_size=32)
student = dict(label_smoothing=0.1, fixed_base_epochs=5)
optimizer = dict(type="torch.optim.Adam", lr=3e-4, weight_decay=5e-4, amsgrad=True)
schedule = dict(type="kd_core.training.schedule.multi_step", milestones=[20, 40])
trainer = dict(epochs=60, eval_every=10, find_unused_parameters=True)
