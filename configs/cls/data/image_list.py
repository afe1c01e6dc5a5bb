r"""Your own images in a list: data/images/list.csv with lines such as cat/1.jpg,cat,train.

python tools/cls_train.py configs/cls/data/image_list.py \
    configs/cls/networks/torchvision_resnet18.py
"""

_base_ = "image_folder.py"

data = dict(
    _delete_=True,
    type="kd_cls.data.image_list",
    csv="data/images/list.csv",
    image_size=224,
    batch_size=64,
)
