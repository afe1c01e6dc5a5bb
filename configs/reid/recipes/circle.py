r"""The bag of tricks with circle loss (arXiv:2002.10857) in the place of the triplet loss.

The loss is pytorch-metric-learning's: pip install 'kd-reid[metric]'.

python tools/reid_train.py configs/reid/data/market1501.py configs/reid/networks/resnet50.py \
    configs/reid/recipes/circle.py
"""

_base_ = "bag_of_tricks.py"

student = dict(
    metric_losses=dict(
        _delete_=True,
        circle=dict(type="pytorch_metric_learning.losses.CircleLoss", m=0.25, gamma=128),
    ),
)
