r"""RLD (arXiv:2408.07703). Compose with data and pair:

python tools/cls_train.py configs/cls/data/cifar100.py \
    configs/cls/pairs/resnet32x4_resnet8x4.py configs/cls/methods/rld.py

The authors' code has one temperature for both parts here, which it calls `--same-t`, and names no
beta for the other pairs of CIFAR-100.
"""

distiller = dict(
    terms=dict(rld=dict(criterion=dict(type="kd_core.criteria.rld.RLD"), warmup_epochs=20)),
)
_terms = dict(  # as published, by pair
    imagenet_resnet34_resnet18=dict(warmup_epochs=0, criterion=dict(beta=0.5, temperature=1.0)),
    imagenet_resnet50_mobilenetv1=dict(warmup_epochs=0, criterion=dict(beta=2.0, temperature=1.0)),
)
by_pair = {name: dict(distiller=dict(terms=dict(rld=term))) for name, term in _terms.items()}
