r"""The linear probe of representation transfer to STL-10: its images at the 32 pixels of CIFAR.

python tools/cls_train.py configs/cls/data/stl10.py configs/cls/networks/resnet8x4.py \
    configs/cls/recipes/linear_probe_stl10.py

and name the one trained on CIFAR-100: --cfg-options student.weights=runs/NAME/student.pth.
The protocol is that of CRD (arXiv:1910.10699), the values are multi-granularity distillation's. The
latter's code keeps the network in training mode, so its BatchNorms adapt to STL-10, and of networks
whose head is not called `fc` (VGG, MobileNetV2) it evaluates the old one.
Images are normalised by STL-10's statistics, not by those of the weights.
"""

_base_ = "linear_probe.py"

data = dict(image_size=32, batch_size=64)
student = dict(mean=(0.4468, 0.4399, 0.4068), std=(0.2419, 0.2384, 0.2541))
