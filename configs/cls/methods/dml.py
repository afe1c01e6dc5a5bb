r"""DML (arXiv:1706.00384): two networks of one kind teach one another; no teacher. Compose with
data and network:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet32.py configs/cls/methods/dml.py

A peer is the student's node with what differs. One learns after the other, as in the paper, with
trainer = dict(step=dict(type="kd_core.training.mutual_step.AlternatingStep")).
"""

peers = dict(peer=dict())
