r"""The thirteen methods of mdistiller on one pair, each with its values for CIFAR-100.

python tools/cls_compare.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py --rows configs/cls/tables/mdistiller.py
"""

_methods = "{{ fileDirname }}/../methods"
_files = dict(
    KD="kd",
    FitNet="fitnet",
    AT="at",
    NST="nst",
    PKT="pkt",
    KDSVD="kdsvd",
    OFD="ofd",
    RKD="rkd",
    VID="vid",
    SP="sp",
    CRD="crd",
    ReviewKD="reviewkd",
    DKD="dkd",
)

rows = {
    "student alone": [],
    **{name: [f"{_methods}/{file}.py"] for name, file in _files.items()},
}
metrics = dict(top1="top-1 %")
