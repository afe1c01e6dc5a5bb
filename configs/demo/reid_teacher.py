"""The demo's teacher: a ResNet18, 44 times larger.

python tools/reid_train.py configs/demo/reid_teacher.py
"""

_base_ = "reid_student.py"

student = dict(network=dict(name="resnet18"))
optimizer = dict(lr=0.001)
trainer = dict(epochs=10, eval_every=5)
