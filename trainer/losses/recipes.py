"""Published objectives: what ``--loss NAME`` alone means, with its source. losses.md gives the pages."""

from __future__ import annotations

from typing import Literal, NamedTuple

Benchmark = Literal["imagenet", "cifar100"]


class Published(NamedTuple):
    """A method's objective as an expression, and where it was read (None for plain cross-entropy)."""

    objective: str
    source: str | None


_LABELS_ONLY = Published("ce*1.0", None)
_PLD = "arXiv 2506.12542: the whole objective, without cross-entropy"

RECIPES: dict[str, dict[Benchmark, Published]] = {
    "ce": {"imagenet": _LABELS_ONLY, "cifar100": _LABELS_ONLY},
    "kd": {
        "imagenet": Published(
            "ce*0.5 + kd(temperature=1)*0.5",
            "arXiv 1503.02531; weights and temperature of mdistiller's ImageNet configuration",
        ),
        "cifar100": Published(
            "ce*0.1 + kd(temperature=4)*0.9",
            "arXiv 1503.02531; weights and temperature of mdistiller's CIFAR-100 configuration",
        ),
    },
    "dkd": {
        "imagenet": Published(
            "ce*1.0 + dkd(alpha=1,beta=0.5,temperature=1,warmup_epochs=1)*1.0",
            "arXiv 2203.08679, ResNet-34 to ResNet-18 (beta=2 for ResNet-50 to MobileNet)",
        ),
        "cifar100": Published(
            "ce*1.0 + dkd(alpha=1,beta=8,temperature=4,warmup_epochs=20)*1.0",
            "arXiv 2203.08679, the authors' default pair (beta is 2 to 8 by pair)",
        ),
    },
    "pld": {
        "imagenet": Published("pld(temperature=1)*1.0", _PLD),
        "cifar100": Published("pld(temperature=4)*1.0", _PLD),
    },
}
