r"""The linear probe of representation transfer to Tiny-ImageNet, at the 32 pixels of CIFAR.

python tools/cls_train.py configs/cls/data/tiny_imagenet.py configs/cls/networks/resnet8x4.py \
    configs/cls/recipes/linear_probe_tiny_imagenet.py

and name the one trained on CIFAR-100: --cfg-options student.weights=runs/NAME/student.pth.
See linear_probe_stl10.py; multi-granularity distillation calls this set ImageNet.
"""

_base_ = "linear_probe.py"

data = dict(
    image_size=32,
    batch_size=128,
    augment=[dict(type="kd_cls.data.augment.CropFlip", flip=False)],
)
student = dict(mean=(0.480, 0.448, 0.398), std=(0.253, 0.245, 0.260))  # not the weights'
optimizer = dict(lr=0.04)
