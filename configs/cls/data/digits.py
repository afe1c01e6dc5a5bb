"""Scikit-learn's 1,797 handwritten digits, a thousand to train on; no download, minutes on a CPU.

python tools/cls_train.py configs/cls/data/digits.py configs/cls/networks/resnet8.py
"""

data = dict(type="kd_cls.data.digits", batch_size=64)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=5e-4)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=2)
trainer = dict(epochs=30, eval_every=5)
