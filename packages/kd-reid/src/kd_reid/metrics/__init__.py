"""Metrics of re-identification: distances, ranking, re-ranking, verification."""

from kd_reid.metrics.blocks import Distances
from kd_reid.metrics.distance import cosine_distance, squared_euclidean
from kd_reid.metrics.labels import labels_of
from kd_reid.metrics.ranking import evaluate_rank, evaluate_rank_both, rank_blocks
from kd_reid.metrics.reranking import jaccard_distance, rerank
from kd_reid.metrics.verification import tpr_at_fpr

__all__ = [
    "Distances",
    "cosine_distance",
    "evaluate_rank",
    "evaluate_rank_both",
    "jaccard_distance",
    "labels_of",
    "rank_blocks",
    "rerank",
    "squared_euclidean",
    "tpr_at_fpr",
]
