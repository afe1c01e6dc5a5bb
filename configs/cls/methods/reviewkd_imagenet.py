r"""ReviewKD (arXiv:2104.09044) as its authors run it on ImageNet. Compose with data and pair:

torchrun --nproc-per-node 8 tools/cls_train.py configs/cls/data/imagenet.py \
    configs/cls/pairs/imagenet_resnet34_resnet18.py configs/cls/methods/reviewkd_imagenet.py

The student is tapped before the activation too, and nothing is warmed up.
"""

_base_ = "reviewkd.py"

data = dict(batch_size=256)
optimizer = dict(lr=0.1)
distiller = dict(
    _delete_=True,
    terms=dict(
        reviewkd=dict(
            criterion=dict(type="kd_core.criteria.reviewkd.ReviewKD"),
            student=["@preact", "@avgpool"],
            teacher=["@preact", "@avgpool"],
        )
    ),
)
by_pair = {
    name: dict(distiller=dict(terms=dict(reviewkd=term))) for name, term in _base_._terms.items()
}
