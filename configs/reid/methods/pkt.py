r"""PKT (arXiv:1803.10837) on the embeddings, which may differ in width.

The weight is RepDistiller's for CIFAR, in batches of 64; on generated embeddings it gives the
student a gradient of the order of rkd.py's. The loss is a mean over the N x N probabilities of a
batch, each row of which has the sum 1: the weight should grow with N. Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/pkt.py
"""

distiller = dict(
    terms=dict(
        pkt=dict(
            criterion=dict(type="kd_core.criteria.pkt.PKT"),
            student="@embedding",
            teacher="@embedding",
            weight=30000.0,
        )
    ),
)
