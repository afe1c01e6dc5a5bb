r"""Labels of every kind on a fifth of CIFAR-10: the measured table of docs/tables.md.

python tools/cls_compare.py --rows configs/cls/tables/labels_cifar10.py

A resnet20 teaches a resnet8; SL-Ens and SL-KD have a second resnet20, of another seed. Temperature
is 1, as in "Label Enhancement" (CVPR 2022 submission 8511), and the two losses of SL-KD have a half
each, so that no method has larger steps. "KD / 10" is the authors' KD, which is divided by the
number of classes too.
"""

_cls = "{{ fileDirname }}/.."
_kd = ["distiller.task_weight=1.0", "distiller.terms.kd.weight=0.01"]
_kd += ["distiller.terms.kd.criterion.temperature=3.0"]
_resnet20 = [f"{_cls}/data/cifar10_small.py", f"{_cls}/networks/resnet20.py"]
_two = [
    f"teachers.first.config={_resnet20!r}",
    f"teachers.second.config={[*_resnet20, f'{_cls}/recipes/another_seed.py']!r}",
]

files = [f"{_cls}/data/cifar10_small.py", f"{_cls}/pairs/cifar10_resnet20_resnet8.py"]
rows = {
    "vanilla": [],
    "LS": [f"{_cls}/methods/label_smoothing.py"],
    "random": [f"{_cls}/methods/random_labels.py"],
    "KD": [f"{_cls}/methods/kd.py"],
    "KD / 10": dict(files=[f"{_cls}/methods/kd.py"], options=_kd),
    "SL": [f"{_cls}/methods/sl.py"],
    "SL-Enc": dict(
        files=[f"{_cls}/methods/sl_enc.py"],
        options=[
            "distiller.terms.sl_enc.weight=1.0",
            "distiller.terms.sl_enc.criterion.temperature=1.0",
        ],
    ),
    "SL-Ens": dict(files=[f"{_cls}/methods/sl_ens.py"], options=_two),
    "SL-KD": dict(
        files=[f"{_cls}/methods/sl_kd.py"],
        options=[*_two, *[f"distiller.terms.{name}.weight=0.5" for name in ("sl", "sl_second")]],
    ),
}
metrics = dict(top1="top-1 %", ece_10="ECE, 10 bins", ece="ECE, 15 bins")
