r"""SP (arXiv:1907.09682) on the embeddings, which may differ in width.

The weight is ours and not tuned: a third of the authors', which is for last maps. On generated
embeddings in batches of 64 it gives the student a gradient of the order of rkd.py's. The loss is a
mean over the N x N similarities of a batch, each row of which has length 1: the weight should grow
with N. For the authors' place tap @map at their weight, 3000. Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/sp.py
"""

distiller = dict(
    terms=dict(
        sp=dict(
            criterion=dict(type="kd_core.criteria.sp.SP"),
            student="@embedding",
            teacher="@embedding",
            weight=1000.0,
        )
    ),
)
