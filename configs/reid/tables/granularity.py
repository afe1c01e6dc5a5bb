r"""Multi-granularity (arXiv:2108.06681) for re-identification, beside what it stands on.

python tools/reid_compare.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_75.py --rows configs/reid/tables/granularity.py

The authors' table mixes students that they trained with numbers of two other code bases, under two
definitions of average precision, and has no row with KD alone. Here all rows are the same student.
"""

_methods = "{{ fileDirname }}/../methods"

rows = {
    "student alone": [],
    "KD": [f"{_methods}/kd.py"],
    "RKD": [f"{_methods}/rkd.py"],
    "RKD + KD": [f"{_methods}/rkd_kd.py"],
    "RKD + KD + MAG": [f"{_methods}/rkd.py", f"{_methods}/mag.py"],
    "RKD + KD + MAS": [f"{_methods}/rkd.py", f"{_methods}/mas.py"],
}
metrics = dict(mAP="mAP %", rank1="rank-1 %")
