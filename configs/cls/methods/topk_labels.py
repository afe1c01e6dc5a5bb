r"""Top-k labels, without those of the data (FKD, arXiv:2112.01528; TinyViT, arXiv:2207.10666): the
teacher's ten largest probabilities, the rest spread over the other classes. Compose with data and
pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/topk_labels.py

FKD keeps 5 of 1,000 classes (`distiller.terms.topk_labels.criterion.k=5`), TinyViT 100 of 21,841.
"""

distiller = dict(
    task_weight=0,
    terms=dict(topk_labels=dict(criterion=dict(type="kd_core.criteria.topk_labels.TopKLabels"))),
)
