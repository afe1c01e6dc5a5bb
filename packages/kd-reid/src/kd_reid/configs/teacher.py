"""The demo's teacher: a wider network.

python tools/reid_train.py configs/demo/reid_teacher.py
"""

_base_ = "student.py"

student = dict(network=dict(name="osnet_x1_0"))
