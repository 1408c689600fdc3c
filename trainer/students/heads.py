"""The student of a run, with the auxiliary head that ``--aux-head`` asks for."""

from __future__ import annotations

from pydantic import ValidationError
from torch import nn

from cache_builder.console.names import unknown_name
from cache_builder.tensors.heads import DualHead, HeadSpec
from trainer.objective.expression import parse_call, pointed
from trainer.run.settings import TrainSettings
from trainer.students import make_student

# The parameters of each kind, all fields of HeadSpec.
_KINDS = {"linear": ("mix", "temperature"), "mlp": ("hidden", "dropout", "mix", "temperature")}


def parse_head(text: str) -> HeadSpec:
    """``linear``, ``mlp`` or one with arguments, as ``linear(mix=0.5, temperature=1)``.

    Raises :class:`ConfigError` that points at what is wrong.
    """
    call = parse_call(text)
    if call.name not in _KINDS:
        raise pointed(text, call.start, unknown_name("auxiliary head", call.name, _KINDS))
    known = _KINDS[call.name]
    for name, start in call.argument_starts.items():
        if name not in known:
            unknown = unknown_name("parameter", name, known)
            raise pointed(text, start, f"auxiliary head {call.name!r}: {unknown}")
    try:
        return HeadSpec.model_validate({"kind": call.name, **call.arguments})
    except ValidationError as error:
        problem = error.errors()[0]
        name = str(problem["loc"][0])
        what = f"auxiliary head {call.name!r}: {name}: {problem['msg']}, got {problem['input']!r}"
        raise pointed(text, call.argument_starts[name], what) from error


def head_of(settings: TrainSettings) -> HeadSpec | None:
    """The auxiliary head of a run, None where it has none."""
    return None if settings.aux_head is None else parse_head(settings.aux_head)


def build_student(
    settings: TrainSettings, classes: int, image_size: int, aux_classes: int | None = None
) -> nn.Module:
    """A fresh student [B, 3, S, S] to [B, C], with its auxiliary head where the run has one."""
    student = make_student(settings.student, classes, image_size)
    spec = head_of(settings)
    return student if spec is None else DualHead(student, spec, classes, aux_classes)
