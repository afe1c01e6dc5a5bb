r"""The methods that Label Optimization's first table compares with on one pair, SSKD the last; see
docs/systems.md for what it calls KDSS.

python tools/cls_compare.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet110_resnet20.py --rows configs/cls/tables/label_optimization_methods.py
"""

_methods = "{{ fileDirname }}/../methods"
_files = dict(
    KD="kd",
    FitNet="fitnet",
    AT="at",
    SP="sp",
    VID="vid",
    RKD="rkd",
    PKT="pkt",
    AB="ab",
    FT="ft",
    CRD="crd",
    SSKD="sskd",
)

rows = {
    "student alone": [],
    **{name: [f"{_methods}/{file}.py"] for name, file in _files.items()},
    "SL-KD": [f"{_methods}/sl_kd.py"],
}
metrics = dict(top1="top-1 %", ece_10="ECE, 10 bins")
