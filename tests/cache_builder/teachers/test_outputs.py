from types import SimpleNamespace

import pytest
import torch

from cache_builder.format.errors import ConfigError
from cache_builder.teachers.outputs import logits_of

LOGITS = torch.arange(6.0).view(2, 3)


@pytest.mark.parametrize(
    "answer",
    [
        LOGITS,
        {"features": torch.zeros(2, 9), "logits": LOGITS},
        {"out": LOGITS},
        SimpleNamespace(logits=LOGITS, hidden_states=None),
        (LOGITS, torch.zeros(2, 3)),
        LOGITS[:, :, None, None],
    ],
    ids=["tensor", "dict", "out", "object", "with auxiliary", "map"],
)
def test_logits_are_found_in_what_models_answer(answer: object) -> None:
    assert torch.equal(logits_of(answer), LOGITS)


@pytest.mark.parametrize("answer", [{"features": LOGITS}, None, "x", torch.zeros(2, 3, 4), []], ids=str)
def test_anything_else_is_refused_by_what_it_was(answer: object) -> None:
    with pytest.raises(ConfigError, match="expected logits of shape"):
        logits_of(answer)
