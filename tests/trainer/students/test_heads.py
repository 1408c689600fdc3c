"""--aux-head on the command line, and the student it makes."""

from __future__ import annotations

import pytest
import torch

from cache_builder.format import ConfigError
from cache_builder.tensors.heads import DualHead, HeadSpec
from tests.trainer.runs import config
from trainer.students.heads import build_student, parse_head


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("linear", HeadSpec(kind="linear")),
        ("mlp", HeadSpec(kind="mlp", hidden=200, dropout=0.1, mix=0.0, temperature=1.0)),
        ("mlp(hidden=50,dropout=0)", HeadSpec(kind="mlp", hidden=50, dropout=0.0)),
        ("linear(mix=0.5, temperature=2)", HeadSpec(kind="linear", mix=0.5, temperature=2.0)),
    ],
)
def test_what_may_be_written(text, expected):
    assert parse_head(text) == expected


@pytest.mark.parametrize(
    ("text", "problem", "place"),
    [
        ("linaer", "unknown auxiliary head 'linaer': did you mean 'linear'", 0),
        ("mlp(hiden=3)", "unknown parameter 'hiden': did you mean 'hidden'", 4),
        ("linear(hidden=3)", "auxiliary head 'linear': unknown parameter 'hidden'", 7),
        ("mlp(hidden=3, mix=2)", "mix: Input should be less than or equal to 1, got 2", 14),
        ("linear(temperature=0)", "temperature: Input should be greater than 0, got 0", 7),
        ("mlp(hidden=0)", "hidden: Input should be greater than or equal to 1, got 0", 4),
        ("mlp(dropout=1)", "dropout: Input should be less than 1, got 1", 4),
        ("mlp(", "expected name=value", 4),
    ],
)
def test_what_may_not_is_pointed_at(text, problem, place):
    with pytest.raises(ConfigError) as error:
        parse_head(text)
    told, shown, pointer = str(error.value).split("\n")
    assert problem in told
    assert (shown, pointer) == (f"  {text}", f"  {' ' * place}^")


def test_the_student_is_the_same_with_and_without_a_head(tmp_path):
    students = []
    for aux_head in (None, "mlp(hidden=5)"):
        torch.manual_seed(3)
        settings = config(tmp_path, None, student="cnn3(width=2)", aux_head=aux_head)
        students.append(build_student(settings, 10, 8))
    bare, both = students
    assert isinstance(both, DualHead)
    assert not isinstance(bare, DualHead)
    for name, value in bare.state_dict().items():
        assert torch.equal(value, both.state_dict()[name])
