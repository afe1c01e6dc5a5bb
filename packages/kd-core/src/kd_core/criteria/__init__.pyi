# Written by `python tests/test_stubs.py`, from what the files beside this one define.

from typing import Any

from kd_core.criteria.ab import AB as AB
from kd_core.criteria.afd import AFD as AFD
from kd_core.criteria.afds import AFDS as AFDS
from kd_core.criteria.at import AT as AT
from kd_core.criteria.catkd import CATKD as CATKD
from kd_core.criteria.cc import CC as CC
from kd_core.criteria.cc import CCNeighbour as CCNeighbour
from kd_core.criteria.class_distances import ClassDistances as ClassDistances
from kd_core.criteria.clkd import CLKD as CLKD
from kd_core.criteria.crd import CRD as CRD
from kd_core.criteria.criterion import Borrowed as Borrowed
from kd_core.criteria.criterion import Criterion as Criterion
from kd_core.criteria.ctkd import CTKD as CTKD
from kd_core.criteria.cwd import CWD as CWD
from kd_core.criteria.dist import DIST as DIST
from kd_core.criteria.dkd import DKD as DKD
from kd_core.criteria.fgd import FGD as FGD
from kd_core.criteria.fitnet import FitNet as FitNet
from kd_core.criteria.fsp import FSP as FSP
from kd_core.criteria.ft import FT as FT
from kd_core.criteria.ft import Paraphraser as Paraphraser
from kd_core.criteria.granularity import Encoders as Encoders
from kd_core.criteria.granularity import MultiGranularity as MultiGranularity
from kd_core.criteria.granularity import SelfAnalysis as SelfAnalysis
from kd_core.criteria.hard_label import HardLabel as HardLabel
from kd_core.criteria.kd import KD as KD
from kd_core.criteria.kd import Standardizable as Standardizable
from kd_core.criteria.kdsvd import KDSVD as KDSVD
from kd_core.criteria.l2d import L2D as L2D
from kd_core.criteria.l2d import MLD as MLD
from kd_core.criteria.mgd import MGD as MGD
from kd_core.criteria.mlkd import MLKD as MLKD
from kd_core.criteria.nkd import NKD as NKD
from kd_core.criteria.nst import NST as NST
from kd_core.criteria.ofd import OFD as OFD
from kd_core.criteria.pkd import PKD as PKD
from kd_core.criteria.pkt import PKT as PKT
from kd_core.criteria.reviewkd import ReviewKD as ReviewKD
from kd_core.criteria.rkd import RKD as RKD
from kd_core.criteria.rld import RLD as RLD
from kd_core.criteria.sdd import SDD as SDD
from kd_core.criteria.simkd import Projector as Projector
from kd_core.criteria.simkd import SimKD as SimKD
from kd_core.criteria.simkd import SimKDNetwork as SimKDNetwork
from kd_core.criteria.skd import SKD as SKD
from kd_core.criteria.sl_enc import SoftLabelEncoder as SoftLabelEncoder
from kd_core.criteria.soft_label import LabelSmoothing as LabelSmoothing
from kd_core.criteria.soft_label import SoftLabel as SoftLabel
from kd_core.criteria.sp import SP as SP
from kd_core.criteria.sskd import SSKD as SSKD
from kd_core.criteria.sskd import SSKDHead as SSKDHead
from kd_core.criteria.topk_labels import TopKLabels as TopKLabels
from kd_core.criteria.ttm import TTM as TTM
from kd_core.criteria.ttm import WTTM as WTTM
from kd_core.criteria.vid import VID as VID
from kd_core.criteria.wkd import WKDFeatures as WKDFeatures
from kd_core.criteria.wkd import WKDLogits as WKDLogits
from kd_core.criteria.wsld import WSLD as WSLD

def __getattr__(name: str) -> Any: ...  # for names that are newer than this file
