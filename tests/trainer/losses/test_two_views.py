from __future__ import annotations

import torch

from tests.trainer.losses.cases import any_batch
from trainer.losses import LOSSES


def views():
    return any_batch(2, 6, 7, 2.0, 3)


def test_mlkd_is_the_released_sum():
    """Masks scale by their fraction, the fourth and fifth strong divergences are the weak view's."""
    student, teacher, labels = views()
    weak = LOSSES["mlkd_single_view"]()(student[0], teacher[0], labels)
    expected = weak
    for temperature, view in ((4.0, 1), (3.0, 1), (5.0, 1), (2.0, 0), (6.0, 0)):
        expected = expected + LOSSES["kd"](temperature=temperature)(student[view], teacher[view], labels)
    torch.testing.assert_close(LOSSES["mlkd"]()(student, teacher, labels), expected)


def test_half_of_the_samples_scale_the_divergences_of_one_view():
    student, teacher, labels = views()
    s, t = student[0], teacher[0]
    p, q = (t / 3).softmax(1), (s / 3).softmax(1)
    classes = (p.T @ p - q.T @ q).square().sum() / 7
    samples = (p @ p.T - q @ q.T).square().sum() / 6
    kd = LOSSES["kd"](temperature=3.0)(s, t, labels)
    # 6 samples: 3 lie up to the median. 7 classes: 4 do.
    expected = 0.5 * (kd + samples) + 4 / 7 * classes
    torch.testing.assert_close(LOSSES["mlkd_single_view"](temperatures=(3.0,))(s, t, labels), expected)


def test_crld_compares_within_and_across_where_the_teacher_is_sure():
    student, teacher, labels = views()
    kd = LOSSES["kd"](temperature=1.0)
    free = LOSSES["crld"](weak_threshold=0.0, strong_threshold=0.0, weights=(1.0, 0.0))
    within = kd(student[0], teacher[0], labels) + kd(student[1], teacher[1], labels)
    torch.testing.assert_close(free(student, teacher, labels), within)
    free = LOSSES["crld"](weak_threshold=0.0, strong_threshold=0.0, weights=(0.0, 1.0))
    across = kd(student[1], teacher[0], labels) + kd(student[0], teacher[1], labels)
    torch.testing.assert_close(free(student, teacher, labels), across)


def test_unsure_samples_stay_in_the_denominator():
    student, teacher, labels = views()
    confidence = teacher[0].softmax(1).max(1).values
    threshold = confidence.median().item() + 1e-6
    sure = confidence >= threshold
    loss = LOSSES["crld"](weak_threshold=threshold, weights=(1.0, 0.0))
    kept = LOSSES["crld"](weak_threshold=0.0, weights=(1.0, 0.0))
    part = kept(student[:, sure], teacher[:, sure], labels[sure])
    torch.testing.assert_close(loss(student, teacher, labels), part * sure.sum() / 6)
