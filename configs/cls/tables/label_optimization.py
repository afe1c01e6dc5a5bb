r"""Label Optimization's table (ICCV 2021 submission 8285): accuracy and calibration of a student
that learns from labels of every kind; option-A ResNets, CIFAR-100.

python tools/cls_compare.py --rows configs/cls/tables/label_optimization.py

The teachers are resnet32_a of KD and SL-Enc, resnet44_a of SL, both of SL-Ens and SL-KD, where the
authors' are not known. "KD / 100" is the authors' KD, which divides by the number of classes too.
Another student: configs/cls/data/cifar100.py configs/cls/recipes/label_optimization.py
configs/cls/networks/resnet110_a.py before --rows. ECE is a fraction of 1; their diagrams have ten
bins.
"""

_cls = "{{ fileDirname }}/.."
_recipe = [f"{_cls}/data/cifar100.py", f"{_cls}/recipes/label_optimization.py"]
_kd = ["distiller.task_weight=1.0", "distiller.terms.kd.weight=0.001"]
_kd += ["distiller.terms.kd.criterion.temperature=3.0"]


def _teacher(name, node="teacher"):
    return f"{node}.config={[*_recipe, f'{_cls}/networks/{name}.py']!r}"


_two = [_teacher("resnet32_a", "teachers.first"), _teacher("resnet44_a", "teachers.second")]

files = [*_recipe, f"{_cls}/networks/resnet20_a.py"]
rows = {
    "vanilla": [],
    "LS": [f"{_cls}/methods/label_smoothing.py"],
    "random": [f"{_cls}/methods/random_labels.py"],
    "KD": dict(files=[f"{_cls}/methods/kd.py"], options=[_teacher("resnet32_a")]),
    "KD / 100": dict(files=[f"{_cls}/methods/kd.py"], options=[_teacher("resnet32_a"), *_kd]),
    "SL": dict(files=[f"{_cls}/methods/sl.py"], options=[_teacher("resnet44_a")]),
    "SL-Enc": dict(files=[f"{_cls}/methods/sl_enc.py"], options=[_teacher("resnet32_a")]),
    "SL-Ens": dict(files=[f"{_cls}/methods/sl_ens.py"], options=_two),
    "SL-KD": dict(files=[f"{_cls}/methods/sl_kd.py"], options=_two),
}
metrics = dict(top1="top-1 %", ece_10="ECE, 10 bins", ece="ECE, 15 bins")
