r"""Similarity distillation: a softmax of every image's cosines with the rest of the batch.

The embeddings may differ in width. Temperature 0.1 and weight 1 are ours and not tuned; on
generated embeddings they give the student a gradient of the order of rkd.py's. Compose with data
and pair:

python tools/reid_train.py configs/reid/data/market1501.py \
    configs/reid/pairs/osnet_x1_0_osnet_x0_25.py configs/reid/methods/similarity.py
"""

distiller = dict(
    terms=dict(
        similarity=dict(
            criterion=dict(type="kd_reid.criteria.similarity.Similarity"),
            student="@embedding",
            teacher="@embedding",
        )
    ),
)
