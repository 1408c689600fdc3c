"""Several teachers as one: the mean of their softmax outputs, stored as its logarithm."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence

import torch
import xxhash
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.teachers.outputs import LOGITS, logits_of
from cache_builder.teachers.preprocessing import Preprocessing
from cache_builder.teachers.teacher import Teacher


class Ensemble(nn.Module):
    """Members' answers to one picture: ``log(mean over m of softmax(logits_m))``, float32 [B, C].

    A log-probability is a logit up to a constant per picture, so every loss takes it as one; at temperature 1
    it gives exactly the mean of the members' probabilities. Its log-sum-exp is 0.
    """

    def __init__(self, members: Sequence[nn.Module], names: Sequence[str]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self._names = tuple(names)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits [B, C] of pixels that are normalised for the first member."""
        answers = [
            logits_of(member(pixels), name) for member, name in zip(self.members, self._names, strict=True)
        ]
        _check_widths(self._names, [answer.shape[1] for answer in answers])
        # float32 also where autocast computes the members: half precision loses the tail of a mean.
        with torch.autocast(pixels.device.type, enabled=False):
            log_p = torch.stack([answer.float().log_softmax(dim=-1) for answer in answers])
            return log_p.logsumexp(dim=0) - math.log(len(answers))

    def named(self) -> list[tuple[str, nn.Module]]:
        """Each member with its name."""
        return list(zip(self._names, self.members, strict=True))


class Renormalised(nn.Module):
    """A member that is handed pixels normalised for another one: ``x * scale + shift``, then the member."""

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, given: Preprocessing, wanted: Preprocessing) -> None:
        super().__init__()
        self.model = model
        scale = [old / new for old, new in zip(given.std, wanted.std, strict=True)]
        shift = [(old - new) / std for old, new, std in zip(given.mean, wanted.mean, wanted.std, strict=True)]
        self.register_buffer("scale", torch.tensor(scale).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The member's logits."""
        logits: Tensor = self.model(pixels * self.scale + self.shift)
        return logits


def combined(teachers: Sequence[Teacher]) -> Teacher:
    """One teacher of several; a single one is itself.

    Every member sees the same picture in its own normalisation. Size, resampling and evaluation crop of the
    picture, and the normalisation that the cache names, are the first member's.
    Raises :class:`ConfigError` for members that want pictures of different sizes, or order the same class
    names differently.
    """
    first = teachers[0]
    if len(teachers) == 1:
        return first
    _check_sizes(teachers)
    members = [_renormalised(teacher, first.preprocessing) for teacher in teachers]
    specs = [teacher.spec for teacher in teachers]
    return Teacher(
        spec="+".join(specs),
        model=Ensemble(members, specs).eval().requires_grad_(False),
        weights=" + ".join(teacher.weights for teacher in teachers),
        digest=ensemble_digest(teachers),
        preprocessing=first.preprocessing,
        class_names=_class_names(teachers),
        outputs=_outputs(teachers),
    )


def ensemble_digest(teachers: Sequence[Teacher]) -> str:
    """xxh64 (hex) over the JSON of each member's digest, mean and std: what decides the ensemble's answer."""
    parts = [[one.digest, one.preprocessing.mean, one.preprocessing.std] for one in teachers]
    return xxhash.xxh64_hexdigest(json.dumps(parts, separators=(",", ":")).encode())


def _renormalised(teacher: Teacher, given: Preprocessing) -> nn.Module:
    wanted = teacher.preprocessing
    same = (wanted.mean, wanted.std) == (given.mean, given.std)
    return teacher.model if same else Renormalised(teacher.model, given, wanted)


def _check_sizes(teachers: Sequence[Teacher]) -> None:
    if len({teacher.preprocessing.input_size for teacher in teachers}) > 1:
        wants = ", ".join(f"{teacher.spec} {teacher.preprocessing.input_size}" for teacher in teachers)
        raise ConfigError(
            "the members of an ensemble look at one picture, but want different sides in pixels: "
            f"{wants}; choose one with --input-size"
        )


def _outputs(teachers: Sequence[Teacher]) -> Mapping[str, int]:
    """The members' outputs, where every member declares its own."""
    if not all(teacher.outputs for teacher in teachers):
        return {}
    _check_widths([teacher.spec for teacher in teachers], [teacher.outputs[LOGITS] for teacher in teachers])
    return teachers[0].outputs


def _check_widths(names: Sequence[str], classes: Sequence[int]) -> None:
    if len(set(classes)) > 1:
        pairs = zip(names, classes, strict=True)
        found = "; ".join(f"{name} gives {count} for a picture" for name, count in pairs)
        raise ConfigError(f"the members of an ensemble must have the same classes: {found}")


def _class_names(teachers: Sequence[Teacher]) -> tuple[str, ...] | None:
    named = [teacher for teacher in teachers if teacher.class_names]
    for teacher in named[1:]:
        first, other = named[0].class_names or (), teacher.class_names or ()
        if set(first) == set(other) and first != other:
            raise ConfigError(
                f"{named[0].spec} and {teacher.spec} have the same class names in another order: their mean "
                "would mix classes up"
            )
    return named[0].class_names if named else None
