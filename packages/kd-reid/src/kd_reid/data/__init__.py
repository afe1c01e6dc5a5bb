"""Data of re-identification: a config's `data` node names one of these functions."""

from kd_reid.data.merged import merged
from kd_reid.data.sets import generated, market1501, people, public, synthetic
from kd_reid.data.splits import DataSplits

__all__ = ["DataSplits", "generated", "market1501", "merged", "people", "public", "synthetic"]
