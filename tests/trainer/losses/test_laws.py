"""What every loss must obey, over the registry. A new loss is tested by being in ``LOSSES``."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

from cache_builder.format.errors import ConfigError, DataError
from tests.trainer.losses.reference import REFERENCES
from trainer.losses import LOSSES, DivergedError

# Settings beside the defaults that a law must hold for as well.
VARIANTS: dict[str, list[dict[str, float]]] = {
    "ce": [{}, {"label_smoothing": 0.1}],
    "kd": [{}, {"temperature": 1.0}],
    "dkd": [{}, {"alpha": 0.5, "beta": 2.0, "temperature": 1.0}],
    "pld": [{}, {"temperature": 4.0}],
}
CASES = [(name, fields) for name in LOSSES for fields in VARIANTS.get(name, [{}])]
every_loss = pytest.mark.parametrize(
    ("name", "fields"), CASES, ids=[f"{name}-{'-'.join(map(str, fields.values()))}" for name, fields in CASES]
)


def batch(samples: int = 6, classes: int = 7, scale: float = 3.0, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    student = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    teacher = scale * torch.randn(samples, classes, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (samples,), generator=generator)
    return student.requires_grad_(), teacher, labels


def gradient(name: str, fields: dict[str, float], student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(LOSSES[name](**fields)(student, teacher, labels), student)
    return grad


def test_registry_names_agree():
    assert {name: kind.name for name, kind in LOSSES.items()} == {name: name for name in LOSSES}


def test_every_loss_has_a_second_evaluation():
    assert set(LOSSES) == set(REFERENCES)


@every_loss
def test_is_a_frozen_documented_dataclass(name, fields):
    kind = LOSSES[name]
    loss = kind(**fields)
    assert dataclasses.is_dataclass(kind)
    assert kind.__doc__
    for field in dataclasses.fields(kind):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(loss, field.name, 1.0)


@every_loss
@pytest.mark.parametrize("scale", [0.1, 3.0, 20.0])
def test_value_agrees_with_the_second_evaluation(name, fields, scale):
    student, teacher, labels = batch(scale=scale, seed=int(scale))
    value = LOSSES[name](**fields)(student, teacher, labels)
    expected = REFERENCES[name](student.detach().numpy(), teacher.numpy(), labels.numpy(), **fields)
    assert value.dtype == torch.float64
    assert value.item() == pytest.approx(expected, rel=1e-10, abs=1e-14)


@every_loss
def test_gradient_is_the_numerical_one(name, fields):
    student, teacher, labels = batch(samples=3, classes=5, scale=1.0)
    assert torch.autograd.gradcheck(
        lambda s: LOSSES[name](**fields)(s, teacher, labels), (student,), rtol=1e-5
    )


@every_loss
@settings(max_examples=40, deadline=None)
@given(
    samples=st.integers(1, 5),
    classes=st.integers(2, 9),
    seed=st.integers(0, 2**31),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_finite_at_extremes(name, fields, samples, classes, seed, dtype):
    rng = np.random.default_rng(seed)
    logits = rng.choice([-80.0, 0.0, 80.0], (2, samples, classes)) + rng.normal(size=(2, samples, classes))
    student, teacher = torch.from_numpy(logits).to(dtype)
    student.requires_grad_()
    labels = torch.from_numpy(rng.integers(classes, size=samples))
    value = LOSSES[name](**fields)(student, teacher, labels)
    value.backward()
    assert value.shape == ()
    assert torch.isfinite(value)
    assert torch.isfinite(student.grad).all()


@every_loss
@settings(max_examples=15, deadline=None)
@given(shift=st.floats(-50, 50), seed=st.integers(0, 2**31))
def test_a_shift_of_all_logits_changes_nothing(name, fields, shift, seed):
    student, teacher, labels = batch(seed=seed)
    expected = LOSSES[name](**fields)(student, teacher, labels).item()
    shifted = LOSSES[name](**fields)(student + shift, teacher - 0.7 * shift, labels).item()
    assert shifted == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_loss
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_a_permutation_of_the_classes_changes_nothing(name, fields, seed):
    student, teacher, labels = batch(seed=seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(student.shape[1]))
    expected = LOSSES[name](**fields)(student, teacher, labels).item()
    permuted = LOSSES[name](**fields)(student[:, order], teacher[:, order], order.argsort()[labels]).item()
    assert permuted == pytest.approx(expected, rel=1e-9, abs=1e-12)


@every_loss
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-5)])
def test_lower_precision_agrees_with_float64(name, fields, dtype, bound):
    student, teacher, labels = batch()
    # The inputs are rounded first: the bound is about the arithmetic, not about storing a bfloat16.
    rounded, taught = student.detach().to(dtype), teacher.to(dtype)
    exact = LOSSES[name](**fields)(rounded.double(), taught.double(), labels)
    value = LOSSES[name](**fields)(rounded, taught, labels)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(exact), rel=bound)


@every_loss
def test_the_mean_over_the_batch_weighs_samples_equally(name, fields):
    student, teacher, labels = batch()
    loss = LOSSES[name](**fields)
    alone = [
        loss(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]).item() for i in range(len(labels))
    ]
    assert loss(student, teacher, labels).item() == pytest.approx(np.mean(alone), rel=1e-9)


@every_loss
def test_labels_are_asked_for_by_name(name, fields):
    student, teacher, labels = batch()
    loss = LOSSES[name](**fields)
    if loss.needs_labels:
        with pytest.raises(ConfigError, match=f"'{name}' needs labels"):
            loss(student, teacher, None)
        with pytest.raises(DataError, match=f"'{name}'.*0 to 6"):
            loss(student, teacher, labels.new_full(labels.shape, -1))
    else:
        assert torch.isfinite(loss(student, teacher, None))


@every_loss
def test_the_teacher_is_asked_for_by_name(name, fields):
    student, teacher, labels = batch()
    loss = LOSSES[name](**fields)
    if loss.needs_teacher:
        with pytest.raises(ConfigError, match=f"'{name}' needs teacher logits"):
            loss(student, None, labels)
    else:
        assert torch.equal(loss(student, None, labels), loss(student, teacher, labels))


@every_loss
def test_non_finite_logits_are_refused_by_name(name, fields):
    student, teacher, labels = batch()
    broken = teacher.clone()
    broken[1, 2] = torch.nan
    with pytest.raises(DataError, match=f"'{name}'.*teacher"):
        LOSSES[name](**fields)(student, broken, labels)
    diverged = student.detach().clone()
    diverged[0, 0] = torch.inf
    with pytest.raises(DivergedError, match=f"'{name}'.*student.*learning rate"):
        LOSSES[name](**fields)(diverged, teacher, labels)


@pytest.mark.parametrize("name", [name for name in LOSSES if "temperature" in LOSSES[name].__annotations__])
@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_temperature_must_be_positive(name, temperature):
    with pytest.raises(ConfigError, match="temperature must be positive"):
        LOSSES[name](temperature=temperature)


def test_the_shape_checks_are_on():
    student, teacher, labels = batch()
    with pytest.raises(TypeCheckError):
        LOSSES["kd"]().formula(student, teacher[:, :3], labels)


@every_loss
def test_different_classes_are_refused_by_name(name, fields):
    student, teacher, labels = batch()
    with pytest.raises(ConfigError, match=rf"'{name}'.*\[6, 7\].*\[6, 3\]"):
        LOSSES[name](**fields)(student, teacher[:, :3], labels)
