"""Published objectives: what ``--loss NAME`` alone means, with its source. losses.md gives the pages.

"ours" in a source: nobody published settings for this kind of data, so these are a place to begin.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Benchmark = Literal["imagenet", "cifar100"]


class Published(NamedTuple):
    """A method's objective as an expression, and where it was read (None for plain cross-entropy)."""

    objective: str
    source: str | None
    aux_head: str | None = None
    """The auxiliary head the method needs, as ``--aux-head`` has it."""


Recipe = dict[Benchmark, Published]


def _both(objective: str, source: str | None, aux_head: str | None = None) -> Recipe:
    published = Published(objective, source, aux_head)
    return {"imagenet": published, "cifar100": published}


def _divergence(term: str, source: str) -> Recipe:
    return _both(f"ce*0.5 + {term}*0.5", f"{source}, for language models; equal weights and images are ours")


_PLD = "arXiv 2506.12542: the whole objective, without cross-entropy"
_DISTILLM = "DistiLLM, arXiv 2402.03898"
_RLD = "RLD, arXiv 2408.07703"

RECIPES: dict[str, Recipe] = {
    "ce": _both("ce*1.0", None),
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
    "dist": {
        "imagenet": Published(
            "ce*1.0 + dist(beta=1,gamma=1,temperature=1)*2.0",
            "arXiv 2205.10536; the trainer's kd_loss_weight of 2 included",
        ),
        "cifar100": Published(
            "ce*1.0 + dist(beta=1,gamma=1,temperature=4)*2.0",
            "arXiv 2205.10536; the trainer's kd_loss_weight of 2 included, tau^2 = 16 inside",
        ),
    },
    "standardized": {
        "imagenet": Published(
            "ce*1.0 + standardized(loss=kd(temperature=2))*9.0", "arXiv 2403.01427, ResNet-34 to ResNet-18"
        ),
        "cifar100": Published(
            "ce*0.1 + standardized(loss=kd(temperature=2))*9.0",
            "arXiv 2403.01427, KD + LS (T 2 to 4 and weights 1 to 12 by pair)",
        ),
    },
    "mlkd": {
        "imagenet": Published(
            "ce*0.5 + mlkd(temperatures=[1,3,5,2,6])*0.5", "CVPR 2023, the released ImageNet configuration"
        ),
        "cifar100": Published(
            "ce*0.1 + mlkd(temperatures=[4,3,5,2,6])*0.9", "CVPR 2023, the released CIFAR-100 configuration"
        ),
    },
    "mlkd_single_view": {
        "imagenet": Published(
            "ce*0.5 + mlkd_single_view(temperatures=[1,3,5,2,6])*0.5",
            "CVPR 2023's ImageNet weights; one view as in RLD's repository (CIFAR-100 there)",
        ),
        "cifar100": Published(
            "ce*0.1 + mlkd_single_view(temperatures=[4,3,5,2,6])*0.9", f"{_RLD}, configuration mlkd_noaug"
        ),
    },
    "rld": {
        "imagenet": Published(
            "ce*1.0 + rld(alpha=1,beta=0.5,temperature=1,scd_temperature=1,warmup_epochs=1)*1.0",
            f"{_RLD}, ResNet-34 to ResNet-18 (beta=2 for ResNet-50 to MobileNet)",
        ),
        "cifar100": Published(
            "ce*1.0 + rld(alpha=1,beta=8,temperature=4,scd_temperature=1,warmup_epochs=20)*1.0",
            f"{_RLD}, the released defaults",
        ),
    },
    "swap": _both("swap(loss=kd(temperature=4))*1.0", f"{_RLD}, SWAP: no cross-entropy (CIFAR-100)"),
    "sort": _both(
        "ce*0.1 + sort(loss=kd(temperature=4))*0.9", "arXiv 2508.16544, KD with sorted logits (CIFAR-100)"
    ),
    "refined_self": _both(
        "ce*0.1 + kd(temperature=4)*0.9 + refined_self(temperature=4)*1.0",
        f"{_RLD}, RC beside KD; its own weight is ours",
    ),
    "ldrld": _both(
        "ce*1.0 + ldrld(alpha=10.5,beta=7,depth=7,temperature=4)*1.0",
        "arXiv 2507.15911, the README's ResNet-32x4 to ResNet-8x4 (CIFAR-100)",
    ),
    "crld": {
        "imagenet": Published(
            "ce*2.0 + crld(temperature=1,weak_threshold=0.9,strong_threshold=0.2,weights=[2.0,0.5])*1.0",
            "arXiv 2412.14493, ImageNet temperature and cross-entropy; thresholds and weights of CIFAR-100",
        ),
        "cifar100": Published(
            "ce*1.0 + crld(temperature=4,weak_threshold=0.9,strong_threshold=0.2,weights=[2.0,0.5])*1.0",
            "arXiv 2412.14493, a re-uploaded default configuration",
        ),
    },
    "pld": {
        "imagenet": Published("pld(temperature=1)*1.0", _PLD),
        "cifar100": Published("pld(temperature=4)*1.0", _PLD),
    },
    "redistill": _both(
        "ce*0.5 + redistill(power=0.6666666666666666,temperature=1)*0.5",
        "arXiv 2602.04677 gives the divergence; weights, T and orientation are ours",
    ),
    "abkd": _both(
        "ce*1.0 + abkd(alpha=0.8,beta=0.3,temperature=4)*32.0",
        "arXiv 2505.04560, ResNet-56 to ResNet-20 on CIFAR-100 (weight 32 or 64)",
    ),
    "ttm": _both(
        "ce*1.0 + ttm(gamma=0.1)*45.0", "arXiv 2402.11148, VGG13 to VGG8 on CIFAR-100 (weights by pair)"
    ),
    "wttm": _both(
        "ce*1.0 + wttm(gamma=0.1)*1.0",
        "arXiv 2402.11148 gives the loss; the weight is ours: U alone is some 50 at 100 classes",
    ),
    "cmkd": _both(
        "ce*1.0 + cmkd(temperature=1)*2.0", "after arXiv 2410.06561; formulas and weights are ours"
    ),
    "r2kd": _both("ce*1.0 + r2kd(temperature=4,weight=2)*1.0", "arXiv 2311.13934, CIFAR-100"),
    "ptloss": _both("ptloss(epsilon=[1.0])*1.0", "arXiv 2305.05010 gives the loss; coefficients are ours"),
    "ltkd": _both(
        "ce*1.0 + ltkd(alpha=1,beta=1,temperature=4)*1.0",
        "arXiv 2506.18496 gives the loss; weights and T are ours",
    ),
    "tad": _both("ce*1.0 + tad(k=10,beta=2)*1.0", "arXiv 2602.20816, for language models, weight 1 on both"),
    "todi": _divergence("todi(temperature=1)", "ToDi, arXiv 2505.16297"),
    "taid": _both("taid(start=0.4,end=1.0)*1.0", "arXiv 2501.16937, the released training loss"),
    "adakd": _both("adakd()*1.0", "arXiv 2510.11615, the released script: no cross-entropy"),
    "bdkd": _divergence("bdkd(delta=3,temperature=1)", "BD-KD as in ABKD's repository, arXiv 2505.04560"),
    "sinkd": _both(
        "ce*0.1 + kd(temperature=2)*0.9 + sinkd(temperature=2)*0.8",
        "arXiv 2402.17110, (1 - a) CE + a KL + b SinKD with a=0.9, b=0.8",
    ),
    "forward_ce": _divergence("forward_ce()", _DISTILLM),
    "reverse_kl": _divergence("reverse_kl()", _DISTILLM),
    "symmetric_kl": _divergence("symmetric_kl(lam=0.9)", _DISTILLM),
    "jsd": _divergence("jsd(lam=0.9)", _DISTILLM),
    "tvd": _divergence("tvd()", _DISTILLM),
    "skew_forward": _divergence("skew_forward(lam=0.1)", _DISTILLM),
    "skew_reverse": _divergence("skew_reverse(lam=0.1)", _DISTILLM),
    "akl": _divergence("akl()", "AKL, arXiv 2404.02657"),
    "first": _divergence("first(k=5)", "FIRST, arXiv 2408.12168"),
    "mse": _both("mse()*1.0", "arXiv 2105.08919: without cross-entropy"),
    "binary_kl": {
        "imagenet": Published(
            "ce*1.0 + binary_kl(temperature=2,head=aux)*0.1",
            "Dual-Head KD, arXiv 2411.08937: linear head; without its gradient alignment",
            "linear",
        ),
        "cifar100": Published(
            "ce*1.0 + binary_kl(temperature=2,head=aux)*1.0",
            "Dual-Head KD, arXiv 2411.08937: nonlinear head; without its gradient alignment",
            "mlp",
        ),
    },
    "ensemble": _both("ensemble()*1.0", "MEAL V2, arXiv 2009.08453: no hard labels (decay near 0 there)"),
    "soft_label": _both(
        "soft_label(kind=marginal_smoothing,k=5)*1.0", "FKD, arXiv 2112.01528: no hard labels (ImageNet)"
    ),
    "ofa": _both("ce*1.0 + ofa(epsilon=1)*1.0", "OFA-KD, arXiv 2310.19444, its logit term"),
    "bkd": _both("ce*1.0 + bkd()*1.0", "as in OFA-KD, arXiv 2310.19444; weights are ours"),
    "nkd": _both("ce*1.0 + nkd(gamma=1.5,temperature=1)*1.0", "arXiv 2303.13005, the released defaults"),
    "ctkd": _both("ce*0.1 + ctkd(loss=kd())*0.9", "arXiv 2211.16231, KD with a learned temperature"),
    "partial_label": _both("partial_label()*1.0", "arXiv 2402.10482; alone, ours"),
    "mixstd": _both("mixstd(gamma=1,alpha=1)*1.0", "MIX-KD, arXiv 2211.03946, with its own cross-entropy"),
    "tgeo": _both("tgeo(temperature=4)*1.0", "arXiv 2312.15112, with its own cross-entropy; T is ours"),
    "dho": _both(
        "ce(samples=labelled)*0.5 + kd(temperature=2,head=aux)*0.5",
        "Dual-Head Optimization, arXiv 2505.07675, released weights and T",
        "linear(mix=0.5,temperature=1)",
    ),
    "ssld": _both("jsd(lam=0.5)*1.0", "PaddleClas SSLD, arXiv 2103.05959: no labels"),
}


def published_objectives(name: str) -> Recipe:
    """The objectives that a loss's name alone stands for; without a published one the bare term, weight 1."""
    return RECIPES.get(name) or _both(f"{name}*1.0", None)
