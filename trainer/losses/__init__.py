"""The losses by name. To add one: a frozen dataclass with a ``formula``, and a line in ``LOSSES``.

``formula`` gives one value per sample. The table of all is README.md beside this file, which ``kdtrain losses
--markdown`` prints from the code. A loss of a package of its own is named ``package.module:Name`` instead.
"""

from trainer.losses import lookup
from trainer.losses.binary import BinaryCrossEntropy, BinaryKL
from trainer.losses.contract import Labels, Logits, Loss, PerSample, Scalar, StatefulLoss
from trainer.losses.correlation import CorrelationMatching, RobustnessReinforced, StrongerTeacher
from trainer.losses.cross_entropy import CrossEntropy
from trainer.losses.decoupled import (
    DecoupledDistillation,
    LongTailDistillation,
    NormalizedDistillation,
    RefinedDistillation,
    TailAwareDivergence,
)
from trainer.losses.divergences import (
    ForwardCrossEntropy,
    JensenShannon,
    ReverseKL,
    SkewForward,
    SkewReverse,
    SymmetricKL,
    TotalVariation,
)
from trainer.losses.flaws import DivergedError
from trainer.losses.geometry import TriangularGeometry
from trainer.losses.interpolation import TemporallyAdaptive
from trainer.losses.kd import (
    KnowledgeDistillation,
    MeanSquaredError,
    TransformedTeacherMatching,
    WeightedTransformedTeacherMatching,
)
from trainer.losses.lookup import find_loss, make_loss
from trainer.losses.power import AlphaBetaDivergence, PowerDivergence
from trainer.losses.ranking import LocalDenseRelations, PlackettLuce
from trainer.losses.rewriting import RefinedSelf, Sort, Standardized, Swap
from trainer.losses.targets import (
    Ensemble,
    OneForAll,
    PartialLabel,
    PerturbedTarget,
    SoftLabel,
    TopKMatching,
)
from trainer.losses.temperature import AdaptiveDifficulty, CurriculumTemperature, DeviationTemperature
from trainer.losses.transport import Sinkhorn
from trainer.losses.two_views import CrossView, MultiLevel, MultiLevelSingleView
from trainer.losses.weighted import AdaptiveKL, BalancedDivergence, TokenwiseDivergence
from trainer.objective.published import RECIPES

LOSSES: dict[str, type[Loss]] = {
    "ce": CrossEntropy,
    "kd": KnowledgeDistillation,
    "dkd": DecoupledDistillation,
    "dist": StrongerTeacher,
    "standardized": Standardized,
    "mlkd": MultiLevel,
    "mlkd_single_view": MultiLevelSingleView,
    "rld": RefinedDistillation,
    "swap": Swap,
    "sort": Sort,
    "refined_self": RefinedSelf,
    "ldrld": LocalDenseRelations,
    "crld": CrossView,
    "pld": PlackettLuce,
    "redistill": PowerDivergence,
    "abkd": AlphaBetaDivergence,
    "ttm": TransformedTeacherMatching,
    "wttm": WeightedTransformedTeacherMatching,
    "cmkd": CorrelationMatching,
    "r2kd": RobustnessReinforced,
    "ptloss": PerturbedTarget,
    "ltkd": LongTailDistillation,
    "tad": TailAwareDivergence,
    "todi": TokenwiseDivergence,
    "taid": TemporallyAdaptive,
    "adakd": AdaptiveDifficulty,
    "bdkd": BalancedDivergence,
    "sinkd": Sinkhorn,
    "forward_ce": ForwardCrossEntropy,
    "reverse_kl": ReverseKL,
    "symmetric_kl": SymmetricKL,
    "jsd": JensenShannon,
    "tvd": TotalVariation,
    "skew_forward": SkewForward,
    "skew_reverse": SkewReverse,
    "akl": AdaptiveKL,
    "first": TopKMatching,
    "mse": MeanSquaredError,
    "binary_kl": BinaryKL,
    "ensemble": Ensemble,
    "soft_label": SoftLabel,
    "ofa": OneForAll,
    "bkd": BinaryCrossEntropy,
    "nkd": NormalizedDistillation,
    "ctkd": CurriculumTemperature,
    "partial_label": PartialLabel,
    "mixstd": DeviationTemperature,
    "tgeo": TriangularGeometry,
}
lookup.LOSSES = LOSSES

__all__ = [
    "LOSSES",
    "RECIPES",
    "DivergedError",
    "Labels",
    "Logits",
    "Loss",
    "PerSample",
    "Scalar",
    "StatefulLoss",
    "find_loss",
    "make_loss",
]
