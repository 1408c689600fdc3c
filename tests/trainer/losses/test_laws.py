"""What every loss must obey, over the registry. A new loss is tested by being in ``LOSSES``."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from pydantic import TypeAdapter
from torch import nn

import trainer.losses
from cache_builder.format.errors import ConfigError, DataError
from tests.trainer.losses.cases import batch, batch_for, every_loss, make, reference_value
from tests.trainer.losses.reference import REFERENCES
from trainer.losses import LOSSES, RECIPES, DivergedError, Loss, StatefulLoss, make_loss
from trainer.objective.losses_explained import markdown_table

# Laws that a loss breaks by what it is.
SEES_THE_LEVEL = {
    "mse": "compares raw logits",
    "binary_kl": "a sigmoid has a zero",
    "bkd": "a sigmoid has a zero",
    "refined_self": "the label's new logit is a sum of two logits",
}


def test_registry_names_agree():
    assert {name: kind.name for name, kind in LOSSES.items()} == {name: name for name in LOSSES}


def test_every_loss_has_a_second_evaluation():
    assert set(LOSSES) == set(REFERENCES)


def test_every_loss_has_a_published_objective():
    assert set(LOSSES) <= set(RECIPES)


def test_every_loss_class_is_registered():
    def leaves(kind: type) -> set[type]:
        below = kind.__subclasses__()
        return {kind, *(leaf for child in below for leaf in leaves(child))}

    named = {kind for kind in leaves(Loss) if "name" in vars(kind) and kind.__module__.startswith("trainer.")}
    assert named == set(LOSSES.values())


def test_the_table_beside_the_losses_is_the_codes():
    readme = Path(trainer.losses.__file__).with_name("README.md").read_text()
    assert markdown_table() in readme


@every_loss
def test_is_a_frozen_documented_dataclass(name, fields):
    loss = make(name, fields)
    assert dataclasses.is_dataclass(loss)
    assert LOSSES[name].__doc__
    assert loss.paper
    assert isinstance(loss, StatefulLoss) == isinstance(loss, nn.Module)
    for field in dataclasses.fields(loss):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, 1.0)


@every_loss
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_value_agrees_with_the_second_evaluation(name, fields, scale):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss, scale=scale, seed=int(scale))
    value = loss(student, teacher, labels)
    assert value.dtype == torch.float64
    expected = reference_value(name, fields, student, teacher, labels)
    assert value.item() == pytest.approx(expected, rel=1e-10, abs=1e-14)


@every_loss
def test_gradient_is_the_numerical_one_of_the_second_evaluation(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss, samples=4, scale=1.0)
    (gradient,) = torch.autograd.grad(loss(student, teacher, labels), student)
    numerical, step = torch.zeros_like(gradient), 1e-3
    for place in np.ndindex(*student.shape):
        values = []
        for factor in (-2, -1, 1, 2):
            moved = student.detach().clone()
            moved[place] += factor * step
            values.append(reference_value(name, fields, moved, teacher, labels, held=student))
        numerical[place] = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    torch.testing.assert_close(gradient, numerical, rtol=1e-6, atol=1e-8)


@every_loss
@settings(max_examples=25, deadline=None)
@given(
    samples=st.integers(1, 5),
    classes=st.integers(2, 9),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    noise=st.sampled_from([0.0, 1.0]),
)
def test_finite_at_extremes(name, fields, samples, classes, seed, dtype, noise):
    """Logits of +-80, ties among them, a student that equals its teacher in places."""
    loss = make(name, fields, classes)
    rng = np.random.default_rng(seed)
    shape = (2, samples, classes) if loss.views == 1 else (2, 2, samples, classes)
    logits = rng.choice([-80.0, 0.0, 80.0], shape) + noise * rng.normal(size=shape)
    student, teacher = torch.from_numpy(logits).to(dtype)
    student.requires_grad_()
    labels = torch.from_numpy(rng.integers(classes, size=samples))
    value = loss(student, teacher, labels)
    value.backward()
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@every_loss
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), samples=st.integers(1, 4))
def test_finite_where_the_student_is_its_teacher(name, fields, seed, samples):
    loss = make(name, fields)
    _, teacher, labels = batch_for(loss, samples=samples, seed=seed)
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher, labels)
    value.backward()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@every_loss
@settings(max_examples=10, deadline=None)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 2**31))
def test_a_shift_of_all_logits_changes_nothing(name, fields, shift, seed):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss, seed=seed)
    expected = loss(student, teacher, labels).item()
    shifted = loss(student + shift, teacher - 0.7 * shift, labels).item()
    if name in SEES_THE_LEVEL:
        assert abs(shift) < 1e-3 or shifted != pytest.approx(expected, rel=1e-9)
    else:
        assert shifted == pytest.approx(expected, rel=1e-8, abs=1e-10)


@every_loss
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_permutation_of_the_classes_changes_nothing(name, fields, seed):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss, seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(student.shape[-1]))
    expected = loss(student, teacher, labels).item()
    if "groups" in fields:  # they belong to the classes, so they go along
        loss = make(name, fields | {"groups": tuple(fields["groups"][c] for c in order.tolist())})
    permuted = loss(student[..., order], teacher[..., order], order.argsort()[labels]).item()
    assert permuted == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_agrees_with_float64(name, fields, dtype):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss, scale=2.0, seed=1)
    # The inputs are rounded first: the bound is about the arithmetic, not about storing a bfloat16.
    rounded, taught = student.detach().to(dtype), teacher.to(dtype)
    exact = loss(rounded.double(), taught.double(), labels).detach()
    value = loss(rounded, taught, labels).detach()
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(exact), rel=3e-5)


@every_loss
def test_autocast_changes_nothing(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    student, teacher = student.detach().float(), teacher.float()
    expected = loss(student, teacher, labels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(student, teacher, labels), expected)


@every_loss
def test_samples_count_alike_unless_the_loss_says_it_couples_them(name, fields):
    loss = make(name, fields, classes=12)
    student, teacher, labels = batch_for(loss, classes=12)
    alone = [
        loss(student[..., i : i + 1, :], teacher[..., i : i + 1, :], labels[i : i + 1]).item()
        for i in range(len(labels))
    ]
    together = loss(student, teacher, labels).item()
    assert (together == pytest.approx(np.mean(alone), rel=1e-9)) == (not loss.couples_samples)


@every_loss
def test_the_values_of_a_batch_are_those_of_its_samples(name, fields):
    """One by one, bit for bit but for the order in which classes are added up; the call is their mean."""
    loss = make(name, fields, classes=12)
    student, teacher, labels = batch_for(loss, classes=12)
    together = loss.values(student, teacher, labels)
    assert torch.equal(loss(student, teacher, labels), together.mean())
    if loss.couples_samples:
        assert together.shape == ()
        return
    assert together.shape == (len(labels),)
    for i, value in enumerate(together):
        one = slice(i, i + 1)
        alone = loss.values(student[..., one, :], teacher[..., one, :], labels[one])
        torch.testing.assert_close(alone, value[None], rtol=1e-13, atol=1e-14)


@every_loss
def test_a_sample_moves_its_own_value_alone(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    values = loss.values(student, teacher, labels)
    if not loss.couples_samples:
        (gradient,) = torch.autograd.grad(values[2], student)
        elsewhere = [i for i in range(len(labels)) if i != 2]
        assert not gradient[..., elsewhere, :].any()


@every_loss
def test_it_says_what_it_reads_of_the_teacher(name, fields):
    assert make(name, fields).reads == "dense"


@every_loss
def test_labels_are_asked_for_by_name(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    if loss.needs_labels:
        with pytest.raises(ConfigError, match=f"'{name}' needs labels"):
            loss(student, teacher, None)
        with pytest.raises(DataError, match=f"'{name}'.*0 to 6"):
            loss(student, teacher, labels.new_full(labels.shape, -1))
    else:
        assert torch.isfinite(loss(student, teacher, None))


@every_loss
def test_the_teacher_is_asked_for_by_name(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    if loss.needs_teacher:
        with pytest.raises(ConfigError, match=f"'{name}' needs teacher logits"):
            loss(student, None, labels)
    else:
        assert torch.equal(loss(student, None, labels), loss(student, teacher, labels))


@every_loss
def test_non_finite_logits_are_refused_by_name(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    broken = teacher.clone()
    broken[..., 1, 2] = torch.nan
    with pytest.raises(DataError, match=f"'{name}'.*teacher"):
        loss(student, broken, labels)
    diverged = student.detach().clone()
    diverged[..., 0, 0] = torch.inf
    with pytest.raises(DivergedError, match=f"'{name}'.*student.*learning rate"):
        loss(diverged, teacher, labels)


@pytest.mark.parametrize("name", [name for name in LOSSES if "temperature" in LOSSES[name].__annotations__])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(name, temperature):
    with pytest.raises(ConfigError, match=f"'{name}': temperature must be positive"):
        LOSSES[name](temperature=temperature)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("rld", {"scd_temperature": 0.0}, "scd_temperature must be positive"),
        ("tad", {"k": 0}, "k must be at least 1"),
        ("ldrld", {"depth": 1}, "depth must be at least 2"),
        ("cmkd", {"k": 1}, "k must be at least 2"),
        ("cmkd", {"rank_temperature": 0}, "rank_temperature must be positive"),
        ("ttm", {"gamma": 0}, "gamma must be positive"),
        ("wttm", {"gamma": -1}, "gamma must be positive"),
        ("jsd", {"lam": 1.0}, "lam must lie between 0 and 1"),
        ("symmetric_kl", {"lam": -0.5}, "lam must lie in 0 to 1"),
        ("skew_forward", {"lam": 1.0}, "lam must lie in 0 up to 1"),
        ("skew_reverse", {"lam": 1.0}, "lam must lie in 0 up to 1"),
        ("first", {"k": 0}, "k must be at least 1"),
        ("first", {"epsilon": 0}, "epsilon must be positive"),
        ("soft_label", {"k": 0}, "k must be at least 1"),
        ("soft_label", {"kind": "soft"}, "kind: Input should be 'hard'"),
        ("ofa", {"epsilon": 0}, "epsilon must be positive"),
        ("sinkd", {"epsilon": 0}, "epsilon must be positive"),
        ("sinkd", {"iterations": 0}, "iterations must be at least 1"),
        ("taid", {"start": 1.5}, "start must lie in 0 to 1"),
        ("taid", {"end": 0.1}, "end must lie in start to 1"),
        ("adakd", {"ratio": 0}, "ratio must lie above 0"),
        ("mlkd", {"temperatures": (1.0, 0.0)}, "temperatures must all be positive"),
        ("redistill", {"orientation": "both"}, "orientation: Input should be 'teacher_student'"),
        ("standardized", {"loss": "kdd"}, "unknown loss 'kdd'"),
        ("standardized", {"loss": {"name": "kd", "configuration": {"t": 1}}}, "unknown parameter 't'"),
        ("swap", {"loss": {"name": "ensemble"}}, "'swap' cannot wrap 'ensemble'"),
        ("sort", {"loss": {"name": "tgeo"}}, "'sort' cannot wrap 'tgeo'"),
        ("ctkd", {"loss": {"name": "tvd"}}, "'tvd' has none: wrap kd or dkd"),
    ],
)
def test_wrong_fields_are_refused_by_name(name, fields, message):
    with pytest.raises(ConfigError, match=message):
        make_loss(name, fields)


@every_loss
def test_settings_survive_json(name, fields):
    loss = make(name, fields)
    adapter = TypeAdapter(LOSSES[name])
    again = make_loss(name, dict(TypeAdapter(dict).validate_json(adapter.dump_json(loss))))
    assert adapter.dump_json(again) == adapter.dump_json(loss)
    student, teacher, labels = batch_for(loss)
    assert torch.equal(again(student, teacher, labels), loss(student, teacher, labels))


def test_the_shape_checks_are_on():
    student, teacher, labels = batch()
    with pytest.raises(TypeCheckError):
        LOSSES["kd"]().formula(student, teacher[:, :3], labels)


@every_loss
def test_different_classes_are_refused_by_name(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch_for(loss)
    with pytest.raises(ConfigError, match=rf"'{name}'.*6, 7\].*6, 3\]"):
        loss(student, teacher[..., :3], labels)


@every_loss
def test_another_number_of_views_is_refused_by_name(name, fields):
    loss = make(name, fields)
    student, teacher, labels = batch()
    more = (student, teacher) if loss.views == 2 else (student.expand(2, 6, 7), teacher.expand(2, 6, 7))
    with pytest.raises(ConfigError, match=f"'{name}': student logits are"):
        loss(*more, labels)
