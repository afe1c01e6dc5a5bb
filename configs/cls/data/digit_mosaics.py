"""Several labels an image: which of ten digits are in a picture; no download.

python tools/cls_train.py configs/cls/data/digit_mosaics.py configs/cls/networks/resnet20.py
"""

data = dict(type="kd_cls.data.digit_mosaics", batch_size=64)
optimizer = dict(type="torch.optim.Adam", lr=0.003)
schedule = dict(type="kd_core.training.schedule.cosine", warmup_epochs=1)
trainer = dict(epochs=20, eval_every=5)
