"""Data of classification: a config's `data` node names one of these functions."""

from kd_core.data.device_loader import DeviceLoader
from kd_core.data.split_loader import SplitLoader

from kd_cls.data.arrays import cifar10, cifar100, digits, stl10, synthetic
from kd_cls.data.datasets import dataset
from kd_cls.data.image_folders import image_folder, imagenet, tiny_imagenet
from kd_cls.data.image_lists import image_list
from kd_cls.data.mosaics import digit_mosaics
from kd_cls.data.shard_sets import webdataset
from kd_cls.data.splits import DataSplits
from kd_cls.data.unlabelled import UnlabelledSplits, unlabelled

__all__ = [
    "DataSplits",
    "DeviceLoader",
    "SplitLoader",
    "UnlabelledSplits",
    "cifar10",
    "cifar100",
    "dataset",
    "digit_mosaics",
    "digits",
    "image_folder",
    "image_list",
    "imagenet",
    "stl10",
    "synthetic",
    "tiny_imagenet",
    "unlabelled",
    "webdataset",
]
