r"""A student of each of two teachers alone, and of both (methods/agglomerative.py).

python tools/cls_compare.py configs/cls/data/cifar100.py configs/cls/networks/resnet20.py \
    --rows configs/cls/tables/agglomerative.py --cfg-options distiller.task_weight=1.0

With task_weight=1.0 it learns the labels too, so that its accuracy says something. All rows see
both teachers measured; a row learns from those in its `source`. A file of yours before --rows can
name other teachers, as `first` and `second`.
"""

_method = ["{{ fileDirname }}/../methods/agglomerative.py"]
_source = "distiller.terms.unic.source"

rows = {
    "first": dict(files=_method, options=[f"{_source}=['first']"]),
    "second": dict(files=_method, options=[f"{_source}=['second']"]),
    "both": _method,
}
