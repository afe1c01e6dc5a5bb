r"""SL-KD: the sum of the losses with the soft labels of several teachers, see sl.py. They are its
own, so compose with data and network, or with a pair, whose teacher is left out:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_kd.py
python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet56_resnet20.py configs/cls/methods/sl_kd.py

The sum equals the loss with the mean of the teachers' probabilities, times their number: with two
teachers the gradient is twice as large. sl_ens.py averages logits instead. The authors' code has no
SL-KD; how many teachers they took, and which, is not known. Finished ones are named with
teachers.first.weights=FILE; a file after this one can give other configs, or a third teacher and
its term.
"""

_base_ = "sl.py"

teacher = None  # of a pair
teachers = dict(
    first=dict(
        config=[
            "{{ fileDirname }}/../data/cifar100.py",
            "{{ fileDirname }}/../networks/resnet56.py",
        ],
    ),
    second=dict(
        config=[
            "{{ fileDirname }}/../data/cifar100.py",
            "{{ fileDirname }}/../networks/resnet110.py",
        ],
    ),
)
distiller = dict(
    terms=dict(
        sl=dict(source="first"),
        sl_second=dict(
            criterion=dict(type="kd_core.criteria.soft_label.SoftLabel"), source="second"
        ),
    ),
)
by_recipe = dict(
    label_optimization=dict(
        distiller=dict(terms=dict(sl_second=dict(weight=0.1, criterion=dict(temperature=3.0))))
    ),
)
