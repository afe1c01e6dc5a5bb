r"""Streamlined KD's recipe for ViT and DeiT on ImageNet: AdamW, batch 1024, 300 epochs.

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/networks/timm_deit_tiny_distilled.py configs/cls/recipes/deit.py

Images are cropped and flipped, no more: DeiT's authors (arXiv:2012.12877) mix, erase and repeat
them, so theirs are other numbers. In the reference's code the rate grows once an epoch, from 0 in
the whole first one, and is a tenth of what is meant in every 30th epoch; here it grows in every
step. Weight decay is of all parameters.
"""

data = dict(batch_size=1024)
optimizer = dict(_delete_=True, type="torch.optim.AdamW", lr=5e-4, weight_decay=0.05)
schedule = dict(_delete_=True, type="kd_core.training.schedule.cosine", warmup_epochs=10)
trainer = dict(epochs=300)
