r"""KnowledgeReview's recipe: fine-tune torchvision's pretrained networks for 100 epochs.

python tools/cls_train.py configs/cls/data/image_folder.py \
    configs/cls/networks/torchvision_mobilenet_v2.py configs/cls/recipes/knowledge_review.py

It belongs to data/cifar100_224.py, which includes it; behind other data it trains on your images.
Its rates are 0.05 to epoch 35, then 0.005 to 65, 5e-4 to 95 and 5e-5: its milestones 30, 60 and 90
count from the end of a warm-up of five epochs. There the rate is at 0.01, 0.02, ... 0.05 for an
epoch each; here it grows from 0.01 to 0.05 in every step, which is 0.03 on average in both. Its
images are BGR for networks that were trained on RGB, its float16 is bfloat16 here, and the new head
starts as torch initialises it, there with deviation 0.01.
"""

student = dict(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
data = dict(batch_size=128, drop_last=True)
optimizer = dict(type="torch.optim.SGD", lr=0.05, momentum=0.9, weight_decay=1e-4)
schedule = dict(
    type="kd_core.training.schedule.multi_step",
    milestones=[35, 65, 95],
    warmup_epochs=5,
    warmup_start=0.2,
)
trainer = dict(epochs=100, precision="bf16", channels_last=True)
