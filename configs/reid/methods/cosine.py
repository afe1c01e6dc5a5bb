r"""The direction of the teacher's embedding, behind a linear projector if it has another width.

The weight is ours and not tuned; on generated embeddings it gives the student a gradient of the
order of rkd.py's. Compose with data and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/cosine.py
"""

distiller = dict(
    terms=dict(
        cosine=dict(
            criterion=dict(type="kd_reid.criteria.cosine.Cosine"),
            student="@embedding",
            teacher="@embedding",
            weight=5.0,
        )
    ),
)
