r"""SL-Ens: one soft label from the mean of several teachers' logits, see sl.py. They are its own,
so compose with data and network, or with a pair, whose teacher is left out:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet20.py configs/cls/methods/sl_ens.py
python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet56_resnet20.py configs/cls/methods/sl_ens.py

The authors' code has no SL-Ens. Logits are averaged because with the mean of the probabilities
it would be SL-KD (sl_kd.py) up to a factor, and the published results differ. Finished teachers
are named with teachers.first.weights=FILE; a file after this one can give other configs, or a third
teacher, and then also the longer list. A dict in the place of the list says how much each counts:
--cfg-options "distiller.ensembles.mean={'first': 2, 'second': 1}".
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
    ensembles=dict(mean=["first", "second"]),
    terms=dict(sl=dict(source="mean")),
)
