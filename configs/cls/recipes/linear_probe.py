r"""Linear probe: a new head on the features of a frozen network. Compose with data and network:

python tools/cls_train.py configs/cls/data/stl10.py configs/cls/networks/resnet8x4.py \
    configs/cls/recipes/linear_probe.py

and name the network that a run has trained: --cfg-options student.weights=runs/NAME/student.pth.
Any data, classes and network will do, also one with torchvision's or timm's pretrained weights.
"""

student = dict(linear_probe=True)
optimizer = dict(_delete_=True, type="torch.optim.SGD", lr=0.02, momentum=0.9, weight_decay=5e-4)
schedule = dict(_delete_=True, type="kd_core.training.schedule.multi_step", milestones=[20, 25])
trainer = dict(epochs=50)
