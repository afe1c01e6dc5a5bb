r"""The rows of Streamlined KD's comparison on one pair: its feature-based methods, then its
logit-based ones.

python tools/cls_compare.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py --rows configs/cls/tables/streamlined.py

Its own table has a recipe of its own, recipes/streamlined.py, and twice the images an epoch,
recipes/weak_strong.py; name them before --rows to have them too. With them nothing compares with
numbers of other papers, and there its connectors of OFD and heads of CRD were never trained.
"""

_methods = "{{ fileDirname }}/../methods"
_files = dict(
    FitNet="fitnet",
    RKD="rkd",
    CRD="crd",
    OFD="ofd",
    ReviewKD="reviewkd",
    KD="kd",
    CLKD="clkd",
    DKD="dkd",
    MLKD="mlkd",
    SDD="sdd",
)

rows = {
    "student alone": [],
    **{name: [f"{_methods}/{file}.py"] for name, file in _files.items()},
    "SKD (0.1, 0.9)": [f"{_methods}/skd.py"],
    "SKD (0.5, 0.5)": dict(
        files=[f"{_methods}/skd.py"],
        options=["distiller.task_weight=0.5", "distiller.terms.skd.weight=0.5"],
    ),
    "FitNet + SKD": dict(
        files=[f"{_methods}/fitnet.py", f"{_methods}/skd.py"],
        options=["distiller.task_weight=0.5", "distiller.terms.skd.weight=0.5"],
    ),
}
metrics = dict(top1="top-1 %")
