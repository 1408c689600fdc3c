"""Before the first step: does what is minimised fit what there is to train on and with?"""

from __future__ import annotations

import torch

from cache_builder.format import ConfigError
from cache_builder.views import named
from trainer.objective.objective import Objective
from trainer.replay.view_dataset import ViewDataset, require_labels
from trainer.run.config import RunConfig
from trainer.students.heads import parse_head


def check_objective(objective: Objective, config: RunConfig, dataset: ViewDataset, processes: int) -> None:
    """Raise :class:`ConfigError` for a loss that will not get what it needs."""
    for loss in objective.losses:
        if loss.needs_teacher and not config.caches:
            raise ConfigError(f"loss {loss.name!r} needs a teacher: give --cache, or --loss ce for none")
    _check_labels(objective, dataset)
    _check_mixing(objective, dataset)
    _check_views(objective, config)
    _check_heads(objective, config)
    _check_set_aside(objective, config, processes)
    _try_once(objective, config)


def _check_labels(objective: Objective, dataset: ViewDataset) -> None:
    for term, loss in zip(objective.terms, objective.losses, strict=True):
        if term.samples == "labelled":
            if not dataset.labelled:
                raise ConfigError(
                    f"loss {loss.name!r} looks at labelled samples, but none of the {len(dataset)} samples "
                    f"of {dataset.source.spec} has a label"
                )
        elif loss.needs_labels:
            hint = f": {loss.name}(samples=labelled) looks only at those that have one"
            require_labels(dataset, f"loss {loss.name!r}", hint if dataset.labelled else "")


def _check_mixing(objective: Objective, dataset: ViewDataset) -> None:
    if not dataset.views.mixes:
        return
    recipe = named(dataset.views.recipe).name
    for term, loss in zip(objective.terms, objective.losses, strict=True):
        if loss.needs_held_out:
            raise ConfigError(
                f"loss {loss.name!r} learns from the labels of samples that are set aside, but recipe "
                f"{recipe!r} mixes samples, and a mixture has no single label: use views of another recipe"
            )
        if loss.needs_labels and term.samples == "all":
            raise ConfigError(
                f"loss {loss.name!r} needs labels, but recipe {recipe!r} mixes samples (mixup, CutMix), and "
                "a mixture has no single label: leave that term out, as in --loss 'kd(temperature=4)*1', or "
                f"write {loss.name}(samples=labelled), which looks only at views that are not mixed"
            )


def _check_views(objective: Objective, config: RunConfig) -> None:
    for loss in objective.losses:
        if loss.views > config.view_count:
            names = ", ".join(repr(facts.name) for facts in config.caches)
            raise ConfigError(
                f"loss {loss.name!r} compares {loss.views} views of every sample, but cache {names} has "
                f"{config.view_count}: rebuild it with kdcache build --views 2 or more, or use "
                "--loss mlkd_single_view"
            )


def _check_heads(objective: Objective, config: RunConfig) -> None:
    head = config.settings.aux_head
    if head is not None:
        parse_head(head)
    looked_at = {term.head for term in objective.terms}
    if "aux" in looked_at and head is None:
        name = next(term.name for term in objective.terms if term.head == "aux")
        raise ConfigError(
            f"loss {name!r} looks at an auxiliary head (head=aux), and the student has none: add "
            "--aux-head linear or --aux-head mlp"
        )
    if head is not None and "aux" not in looked_at:
        raise ConfigError(
            f"no loss looks at the auxiliary head {head!r}: write head=aux into a term, as in "
            "ce + kd(head=aux), or leave --aux-head out"
        )
    if "main" not in looked_at:
        raise ConfigError(
            "every loss looks at the auxiliary head, so the student's own classifier would learn nothing: "
            "leave head=aux out of a term"
        )


def _check_set_aside(objective: Objective, config: RunConfig, processes: int) -> None:
    for loss in objective.held_out_losses:
        if config.set_aside < processes:
            raise ConfigError(
                f"loss {loss.name!r} learns from labelled samples that are set aside, here "
                f"{config.set_aside} for {processes} process(es): use more samples, or fewer processes"
            )
        if config.settings.precision == "fp16":
            raise ConfigError(
                f"loss {loss.name!r} learns from second derivatives, which underflow in fp16: use "
                "--precision bf16 or fp32"
            )


def _try_once(objective: Objective, config: RunConfig) -> None:
    """Evaluate it on made-up logits: what else is wrong with a loss here is told before the run begins."""
    samples, classes = 4, config.classes
    generator = torch.Generator().manual_seed(0)  # the global one is the student's
    shape = (samples, classes) if objective.views == 1 else (2, samples, classes)
    taught = (*shape[:-1], config.teacher_classes or classes)
    student = torch.randn(shape, generator=generator)
    teacher, aux = (torch.randn(taught, generator=generator) for _ in range(2))
    objective(student, teacher, torch.arange(samples) % classes, 0, aux)
    objective.checks.ask()
