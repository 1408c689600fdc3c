"""A network with two heads: what it gives, what it answers, and how its weights are named."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from cache_builder.format.errors import ConfigError
from cache_builder.tensors.heads import DualHead, HeadSpec

CLASSES = 5


def network() -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, CLASSES))


def dual(**settings: object) -> DualHead:
    torch.manual_seed(0)
    return DualHead(network(), HeadSpec.model_validate({"kind": "linear", **settings}), CLASSES)


def images(count: int = 6) -> Tensor:
    return torch.randn(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def test_in_training_it_gives_both_heads_on_the_same_features() -> None:
    model = dual()
    main, aux = model.train()(images())
    features = model.network[:3](images())  # type: ignore[index]  # a Sequential
    torch.testing.assert_close(main, model.network(images()))
    torch.testing.assert_close(aux, model.aux_head(features))
    assert not torch.equal(main, aux)
    aux.sum().backward()
    gradient = model.network[1].weight.grad  # type: ignore[index]
    assert gradient.abs().sum() > 0  # the features learn from the auxiliary head too


def test_without_a_share_the_main_head_answers_alone() -> None:
    model = dual().eval()
    assert torch.equal(model(images()), model.network(images()))


@pytest.mark.parametrize(("mix", "temperature"), [(0.3, 1.0), (0.5, 4.0), (1.0, 2.0)])
def test_with_a_share_the_answer_is_the_mixture_of_probabilities(mix: float, temperature: float) -> None:
    model = dual(mix=mix, temperature=temperature)
    main, aux = model.train()(images())
    expected = (1 - mix) * main.softmax(1) + mix * (aux / temperature).softmax(1)
    torch.testing.assert_close(model.eval()(images()), expected.log())
    assert torch.equal(model(images()), model.spec.answer(main, aux))


def test_the_mlp_is_the_papers() -> None:
    torch.manual_seed(0)
    head = HeadSpec(kind="mlp", hidden=9, dropout=0.25).layers(7, CLASSES)
    assert isinstance(head, nn.Sequential)
    assert [type(layer) for layer in head] == [nn.Linear, nn.Dropout, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [tuple(layer.weight.shape) for layer in (head[0], head[4])] == [(9, 7), (CLASSES, 9)]
    assert head[1].p == 0.25


def test_weights_keep_the_names_of_the_bare_network() -> None:
    model = dual(mix=0.5)
    own = set(network().state_dict())
    assert set(model.state_dict()) == own | {"aux_head.weight", "aux_head.bias"}
    bare = network()
    left = bare.load_state_dict(model.state_dict(), strict=False)
    assert left.missing_keys == []
    torch.testing.assert_close(bare(images()), model.network(images()))
    other = DualHead(network(), model.spec, CLASSES).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), model.eval()(images()))


def test_what_is_missing_is_reported_by_the_same_names() -> None:
    state = dual().state_dict()
    del state["1.weight"]
    state["9.weight"] = torch.zeros(1)
    left = dual().load_state_dict(state, strict=False)
    assert (left.missing_keys, left.unexpected_keys) == (["1.weight"], ["9.weight"])


class Nested(nn.Module):
    """Its parts are named like those of the wrapper."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Linear(12, 12)
        self.weight = nn.Parameter(torch.ones(12))
        self.classifier = nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.network(x.flatten(1)) * self.weight)
        return logits


def test_a_network_with_a_part_called_network_keeps_its_names() -> None:
    model = DualHead(Nested(), HeadSpec(kind="linear"), CLASSES).eval()
    assert set(model.state_dict()) == {*Nested().state_dict(), "aux_head.weight", "aux_head.bias"}
    other = DualHead(Nested(), HeadSpec(kind="linear"), CLASSES).eval()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(images()), model(images()))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_looks_at_its_own_features(copied: object) -> None:
    model = dual(mix=1.0).eval()
    other = copied(model)  # type: ignore[operator]
    assert torch.equal(other(images()), model(images()))
    with torch.no_grad():
        other.network[1].weight.zero_()
    assert not torch.equal(other(images()), model(images()))


class OnTokens(nn.Module):
    """Classifies every token, then takes the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(x.flatten(2)).mean(1)
        return logits


class WithItsOwn(nn.Module):
    """Has a part of the name the head's weights would have."""

    def __init__(self) -> None:
        super().__init__()
        self.aux_head = nn.Linear(12, CLASSES)


def test_networks_that_cannot_have_one_are_refused() -> None:
    spec = HeadSpec(kind="linear")
    with pytest.raises(ConfigError, match="Conv2d has no Linear layer with 5 outputs"):
        DualHead(nn.Conv2d(3, CLASSES, 1), spec, CLASSES)
    with pytest.raises(ConfigError, match="WithItsOwn has an aux_head of its own"):
        DualHead(WithItsOwn(), spec, CLASSES)
    with pytest.raises(ConfigError, match=r"no auxiliary head fits OnTokens.*was given \[6, 3, 4\]"):
        DualHead(OnTokens(), spec, CLASSES)(images())
