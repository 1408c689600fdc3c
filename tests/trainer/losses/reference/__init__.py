"""The losses a second time: NumPy float64 loops from the formulas, sharing no code with the trainer."""

from __future__ import annotations

from tests.trainer.losses.reference.basics import Reference
from tests.trainer.losses.reference.batchwise import mlkd_single_view, sinkd
from tests.trainer.losses.reference.binary import binary_kl, bkd
from tests.trainer.losses.reference.correlation import cmkd, dist, r2kd
from tests.trainer.losses.reference.decoupled import dkd, ltkd, nkd, rld, tad
from tests.trainer.losses.reference.divergences import (
    akl,
    bdkd,
    forward_ce,
    jsd,
    reverse_kl,
    skew_forward,
    skew_reverse,
    symmetric_kl,
    todi,
    tvd,
)
from tests.trainer.losses.reference.hinton import ce, kd, mixstd, mse, ttm, wttm
from tests.trainer.losses.reference.powers import abkd, ptloss, redistill
from tests.trainer.losses.reference.ranking import ldrld, pld
from tests.trainer.losses.reference.stateful import adakd, adakd_ratios, taid, taid_schedule, tgeo
from tests.trainer.losses.reference.targets import (
    ensemble,
    first,
    ofa,
    partial_label,
    refined_self,
    soft_label,
)
from tests.trainer.losses.reference.two_view import crld, mlkd
from tests.trainer.losses.reference.wrappers import ctkd, sort, standardized, swap

__all__ = ["REFERENCES", "Reference", "adakd_ratios", "taid_schedule"]

REFERENCES: dict[str, Reference] = {
    "ce": ce,
    "kd": kd,
    "dkd": dkd,
    "dist": dist,
    "standardized": standardized,
    "mlkd": mlkd,
    "mlkd_single_view": mlkd_single_view,
    "rld": rld,
    "swap": swap,
    "sort": sort,
    "refined_self": refined_self,
    "ldrld": ldrld,
    "crld": crld,
    "pld": pld,
    "redistill": redistill,
    "ttm": ttm,
    "wttm": wttm,
    "abkd": abkd,
    "cmkd": cmkd,
    "r2kd": r2kd,
    "ptloss": ptloss,
    "ltkd": ltkd,
    "tad": tad,
    "todi": todi,
    "taid": taid,
    "adakd": adakd,
    "bdkd": bdkd,
    "sinkd": sinkd,
    "forward_ce": forward_ce,
    "reverse_kl": reverse_kl,
    "symmetric_kl": symmetric_kl,
    "jsd": jsd,
    "tvd": tvd,
    "skew_forward": skew_forward,
    "skew_reverse": skew_reverse,
    "akl": akl,
    "first": first,
    "mse": mse,
    "binary_kl": binary_kl,
    "ensemble": ensemble,
    "soft_label": soft_label,
    "ofa": ofa,
    "bkd": bkd,
    "nkd": nkd,
    "ctkd": ctkd,
    "partial_label": partial_label,
    "mixstd": mixstd,
    "tgeo": tgeo,
}
