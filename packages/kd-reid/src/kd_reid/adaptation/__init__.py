"""Adaptation of a trained network to unlabelled people and cameras.

Yin et al., "Self-supervised Knowledge Distillation for Cross Domain Adaptive Person
Re-Identification", arXiv:2009.05972, with one student and its moving average as teacher.
"""

from kd_reid.adaptation.target import UnlabelledData, unlabelled

__all__ = ["UnlabelledData", "unlabelled"]
