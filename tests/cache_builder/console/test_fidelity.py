"""What is said of a cache's faithfulness: on synthetic manifests."""

from __future__ import annotations

import pytest

from cache_builder.console.fidelity import (
    CALIBRATED_VIEWS,
    fidelity_facts,
    fidelity_warnings,
    measured_views,
    megabytes,
    next_larger,
    saw_all_records,
    way_out,
)
from cache_builder.format.codecs.all_logits import AllLogits
from cache_builder.format.codecs.joint_sketch import JointSketchSettings
from cache_builder.format.manifest import Manifest
from tests.caches import synthetic_manifest
from tests.rate_points import rate_point, with_table

JOINT = JointSketchSettings(
    top_k=5, value_step=0.08, rank=1, step=1.0, finer=0, dead_zone=0.0, sample_values=((1, 3),),
    view_values=((12, 3),),
)  # fmt: skip
POINTS = (
    rate_point(30, 0.2, (0.97, 0.85), worst=0.6),
    rate_point(61, 0.1, (0.99, 0.94), worst=0.8),
    rate_point(115, 0.0497, (0.998, 0.972), worst=0.9),
    rate_point(195, 0.02, (0.9995, 0.992), worst=0.96),
)


def joint() -> Manifest:
    return synthetic_manifest().with_codec(JOINT)


def test_a_good_cache() -> None:
    manifest = with_table(*POINTS, chosen=3, lose=0.02, manifest=joint())
    assert fidelity_facts(manifest) == {
        "lost": "2 % of the variance of the teacher's logits, on held-out views",
        "losses": "at T = 1 they see the teacher as if it were live (gradient cosine 0.9995, where 1 is the "
        "live teacher), at T = 4 the teacher as if it were live (0.9920); the worst of a few losses has "
        "0.9600",
    }
    assert fidelity_warnings(manifest) == []


def test_a_blurred_one_says_what_a_larger_record_costs_and_gives() -> None:
    manifest = with_table(*POINTS, chosen=0, lose=0.2, manifest=joint())
    facts = fidelity_facts(manifest)
    assert "at T = 1 they see the teacher nearly as it is" in facts["losses"]
    assert "at T = 4 a blurred teacher (0.8500)" in facts["losses"]
    assert facts["larger"] == (
        "records of 61.0 bytes a view where these take 30.0 by the same measure, about 18.7 kB with the "
        "basis for this data set, lose 10 % and have gradient cosine 0.9400 at T = 4: --lose 0.1"
    )
    (warning,) = fidelity_warnings(manifest)
    assert warning == (
        "WARNING: losses above T = 1 see a blurred teacher (gradient cosine 0.8500 at T = 4, where 1 is the "
        "live teacher): build again with --lose 0.05, 115.0 bytes a view with gradient cosine 0.9720"
    )


def test_more_than_was_asked() -> None:
    manifest = with_table(*POINTS, chosen=3, lose=0.015, manifest=joint())
    (warning,) = fidelity_warnings(manifest)
    assert "the record loses 2 % of the logits' variance, more than --lose 0.015 allows" in warning
    assert fidelity_warnings(with_table(*POINTS, chosen=3, lose=0.019, manifest=joint())) == []


def test_the_default_limit_is_a_limit() -> None:
    missed = rate_point(195, 0.031, (0.9995, 0.992), worst=0.96)
    (warning,) = fidelity_warnings(with_table(missed, manifest=joint()))
    assert warning == (
        "WARNING: the record loses 3.1 % of the logits' variance, more than the default --lose 0.02 allows: "
        "no smaller --lose keeps that limit here, build again with more samples or more --views, or with "
        "--exact, which stores every logit"
    )
    assert fidelity_warnings(with_table(missed, budget=200, manifest=joint())) == []


def test_a_smaller_limit_is_named_where_the_table_has_it() -> None:
    table = (*POINTS, rate_point(300, 0.012, (0.9999, 0.995)))
    (warning,) = fidelity_warnings(with_table(*table, chosen=3, lose=0.015, manifest=joint()))
    assert warning.endswith("allows: build again with --lose 0.012 to keep that limit")


def test_no_row_is_good_enough() -> None:
    least = with_table(*POINTS[:2], chosen=1, budget=61, manifest=joint())
    assert way_out(least).startswith("build again with more samples or more --views, or with --exact")
    other = with_table(*POINTS[:2], budget=30, manifest=joint())
    assert way_out(other) == "build again with a smaller --lose, such as 0.05"
    assert way_out(synthetic_manifest()) == "build again with --lose 0.02 or less"


def test_no_larger_limit_than_was_asked_is_named() -> None:
    manifest = with_table(*POINTS[:3], lose=0.02, manifest=joint())
    assert way_out(manifest).startswith("build again with more samples")


def test_a_class_sketch_is_named_by_its_size() -> None:
    sketch = synthetic_manifest().with_codec(synthetic_manifest(sketch=True).codec)
    assert sketch.codec.name == "class-sketch"
    assert way_out(with_table(POINTS[0], manifest=sketch)) == (
        "build again with a larger --bytes-per-view, such as 60"
    )
    (missed, _) = fidelity_warnings(with_table(POINTS[0], lose=0.1, manifest=sketch))
    assert missed.endswith("--lose 0.1 allows: build again with a larger --bytes-per-view, such as 60")


def test_a_lower_k_is_named_with_the_limit() -> None:
    """Records of K = 3 are no promise of what K = 5 takes."""
    rows = [row.model_copy(update={"top_k": 3}) for row in POINTS]
    manifest = with_table(*rows, budget=31, manifest=joint())
    assert way_out(manifest).startswith("build again with --lose 0.05 --top-k 3, 115.0 bytes a view")
    assert fidelity_facts(manifest)["larger"].endswith("--lose 0.1 --top-k 3")


def test_a_larger_record_that_gains_little_is_not_named() -> None:
    manifest = with_table(rate_point(30, 0.02), rate_point(31, 0.019), rate_point(40, 0.01))
    assert next_larger(manifest) == manifest.calibration.table[2]
    assert next_larger(with_table(rate_point(30, 0.02), rate_point(31, 0.019))) is None


def test_caches_of_earlier_releases() -> None:
    points = [rate_point(size, None, None, worst) for size, worst in ((20, 0.9), (30, 0.99))]
    manifest = with_table(*points)
    assert fidelity_facts(manifest) == {
        "losses": "the worst of a few losses has 0.9000 as gradient cosine (1 is the live teacher)",
        "larger": "records of 30.0 bytes a view where these take 20.0 by the same measure, about 9.4 kB with "
        "the basis for this data set, have gradient cosine 0.9900 for the worst loss: --bytes-per-view 30",
    }
    (warning,) = fidelity_warnings(manifest)
    assert "some losses see a blurred teacher" in warning
    assert "--bytes-per-view 30" in warning
    assert fidelity_warnings(with_table(*points, chosen=1)) == []


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (synthetic_manifest(classes=10, top_k=10), "nothing but rounding to 8 bits"),
        (
            synthetic_manifest().with_codec(AllLogits.of(40, "float16").settings),
            "nothing but rounding to 16 bits",
        ),
    ],
    ids=["topk-tail", "all-logits"],
)
def test_of_classes_stored_one_by_one_only_rounding_is_lost(manifest: Manifest, said: str) -> None:
    assert list(fidelity_facts(manifest)) == ["lost"]
    assert fidelity_facts(manifest)["lost"].startswith(said)


def test_nothing_is_said_where_nothing_was_chosen() -> None:
    manifest = synthetic_manifest()
    assert fidelity_facts(manifest) == {}
    assert fidelity_warnings(manifest) == []


def test_figures_of_all_records_are_not_called_held_out() -> None:
    manifest = with_table(*POINTS, manifest=joint())
    assert not saw_all_records(manifest)
    whole = manifest.calibration.model_copy(update={"pairs": 300})
    manifest = manifest.model_copy(update={"calibration": whole})
    assert saw_all_records(manifest)
    assert fidelity_facts(manifest)["lost"].endswith("on the views of this cache")
    # The other codecs hold out one half of the same pairs.
    assert not saw_all_records(manifest.with_codec(synthetic_manifest(sketch=True).codec))


def test_figures_of_an_extended_cache_are_those_of_the_views_before() -> None:
    manifest = with_table(*POINTS, manifest=joint())
    assert manifest.views.count == 3
    manifest = manifest.model_copy(update={"environment": {CALIBRATED_VIEWS: "2"}})
    assert measured_views(manifest) == "the views that it was fitted to, the first 2 of 3"
    few = manifest.calibration.model_copy(update={"pairs": 150})
    manifest = manifest.model_copy(update={"calibration": few})
    assert measured_views(manifest) == "held-out views among the first 2 of 3"


@pytest.mark.parametrize(("size", "said"), [(16_494_000, "16.49 MB"), (1.54e9, "1.54 GB"), (9_140, "9.1 kB")])
def test_sizes(size: float, said: str) -> None:
    assert megabytes(size) == said


@pytest.mark.parametrize("std", [0.0, 9e-8])
def test_a_teacher_that_answers_everything_alike(std: float) -> None:
    """Shares of nothing say nothing, whatever they come to."""
    manifest = with_table(rate_point(3, 0.16, (0.6, 0.6), worst=0.5), lose=0.02, manifest=joint())
    section = manifest.calibration.model_copy(update={"logit_std": std})
    manifest = manifest.model_copy(update={"calibration": section})
    assert list(fidelity_facts(manifest)) == ["lost"]
    assert fidelity_facts(manifest)["lost"].startswith("the teacher answers every picture alike, so there is")
    assert fidelity_warnings(manifest) == []
