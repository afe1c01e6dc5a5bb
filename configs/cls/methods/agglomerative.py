r"""One student of several teachers, without labels, as UNIC (arXiv:2408.05088) trains it: heads and
running standardisation for each teacher, and dropping of teachers. They are its own, so compose
with data and network, or with a pair, whose teacher is left out:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/networks/resnet20.py configs/cls/methods/agglomerative.py
python tools/cls_train.py configs/cls/data/cifar100.py configs/cls/networks/resnet20.py \
    configs/cls/methods/agglomerative.py --cfg-options \
    distiller.terms.unic.criterion.balance=phi_s distiller.terms.unic.drop=0.25

Finished teachers are named with teachers.first.weights=FILE; a file after this one can give other
networks, or more teachers and then a longer `source`. log.jsonl has the loss of each before any is
dropped, such as loss_unic_first. See docs/foundation.md.
"""

teacher = None  # of a pair
teachers = dict(
    first=dict(
        config=[
            "{{ fileDirname }}/../data/cifar100.py",
            "{{ fileDirname }}/../networks/resnet32.py",
        ],
    ),
    second=dict(
        config=[
            "{{ fileDirname }}/../data/cifar100.py",
            "{{ fileDirname }}/../networks/resnet8x4.py",
        ],
    ),
)
trainer = dict(find_unused_parameters=True)  # of the classifier, with several processes
distiller = dict(
    task_weight=0.0,
    terms=dict(
        unic=dict(
            criterion=dict(type="kd_core.criteria.unic.UNIC", balance="standardize"),
            source=["first", "second"],
            drop=0.5,
            student=["@pooled", "@map"],
            teacher=["@pooled", "@map"],
        )
    ),
)
