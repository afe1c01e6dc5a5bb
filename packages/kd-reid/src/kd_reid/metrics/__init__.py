"""Metrics of re-identification: distances, ranking, re-ranking."""

from kd_reid.metrics.distance import cosine_distance, squared_euclidean
from kd_reid.metrics.ranking import evaluate_rank, evaluate_rank_both
from kd_reid.metrics.reranking import jaccard_distance, rerank

__all__ = [
    "cosine_distance",
    "evaluate_rank",
    "evaluate_rank_both",
    "jaccard_distance",
    "rerank",
    "squared_euclidean",
]
