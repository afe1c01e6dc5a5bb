r"""What is made faster, against fp32 with the teacher online: are students as good?

python tools/cls_compare.py configs/cls/data/cifar10_small.py \
    configs/cls/pairs/cifar10_resnet20_resnet8.py configs/cls/methods/dkd.py \
    --rows configs/cls/tables/speed.py --seeds 0 1 2 3 4
"""

rows = {
    "fp32": [],
    "bf16": dict(options=["trainer.precision=bf16"]),
    "fp32, teacher cached": dict(options=["trainer.teacher_cache=True"]),
}
metrics = dict(top1="top-1 %")
