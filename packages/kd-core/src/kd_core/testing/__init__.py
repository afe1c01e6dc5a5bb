"""Contract tests of criteria, ours or yours: `check_contract(MyCriterion)`."""

from kd_core.testing.contract import RULES, check_contract
from kd_core.testing.samples import discover, make, sample
from kd_core.testing.synthetic_signals import fill, signals
from kd_core.training.host_reads import HostReadError, NoHostReads

__all__ = [
    "RULES",
    "HostReadError",
    "NoHostReads",
    "check_contract",
    "discover",
    "fill",
    "make",
    "sample",
    "signals",
]
