"""The demo's teacher: a larger network, trained on all labels of the training set.

python tools/cls_train.py configs/demo/teacher.py
"""

_base_ = "student.py"

data = dict(limit_per_class=None, batch_size=64)
student = dict(network=dict(name="resnet20"))
trainer = dict(epochs=20)
