r"""Random labels (arXiv:1611.03530): a control. Every training image has a class drawn once, from
the data seed, so the accuracy on the test set, whose labels are true, is 1 / classes on average.
Compose with data and network:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet20.py configs/cls/methods/random_labels.py

A pair would do as well as the network, but its teacher would be trained for nothing. Behind a
method it says what the method makes of labels that are wrong; soft labels do not read them.
"""

data = dict(random_labels=True)
