r"""Label smoothing (arXiv:1512.00567): a baseline without a teacher. Compose with data and network:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet20.py configs/cls/methods/label_smoothing.py

A tenth of the label is spread over all classes, the true one included. A pair would do as well as
the network, but its teacher would be trained for nothing. Beside other terms, with a weight of its
own, it is the criterion kd_core.criteria.soft_label.LabelSmoothing.
"""

student = dict(label_smoothing=0.1)
