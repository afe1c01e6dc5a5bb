r"""Multi-granularity (arXiv:2108.06681), with the rows that its own tables lack: X + KD.

python tools/cls_compare.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py --rows configs/cls/tables/granularity.py

Every MAG and MAS row of the authors has a KD term beside X, while their rows of X have none. What
the codes add is the difference from X + KD, which is what the last column shows. Some rows only:
--only AT "AT + KD" "AT + KD + MAG".
"""

_methods = "{{ fileDirname }}/../methods"
_bases = dict(
    FitNet="fitnet", AT="at", SP="sp", VID="vid", RKD="rkd", CRD="crd", AFDS="afds", PKT="pkt"
)
_added = {
    "": [],
    " + KD": ["plus_kd"],
    " + KD + MAG": ["mag"],
    " + KD + MAS": ["mas"],
}

rows = {
    "student alone": [],
    "KD": [f"{_methods}/kd.py"],
    "KD + MAG": [f"{_methods}/mag_kd.py"],
    "KD + MAS": [f"{_methods}/mas_kd.py"],
    **{
        f"{base}{added}": [f"{_methods}/{file}.py" for file in (method, *files)]
        for base, method in _bases.items()
        for added, files in _added.items()
    },
}
against = {
    **{base: "student alone" for base in ("KD", *_bases)},
    **{f"{base} + KD": base for base in _bases},
    **{f"{base} + KD + {code}": f"{base} + KD" for base in _bases for code in ("MAG", "MAS")},
    "KD + MAG": "KD",
    "KD + MAS": "KD",
}
metrics = dict(top1="top-1 %", ece="ECE, 15 bins")
