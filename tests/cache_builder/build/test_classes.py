"""Labels of a data set in the teacher's numbering: by name where both name their classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from cache_builder.build.classes import FittedLabels, StoredClasses, agreement, fit_labels, fit_stored
from cache_builder.build.settings import BuildSettings
from cache_builder.datasets import ArraySource
from cache_builder.datasets.imagenet_names import imagenet_names
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.teachers import Preprocessing, Teacher


def source(*names: str, labels: list[int] | None = None) -> ArraySource:
    """One black picture of each class, or those of the labels."""
    found = np.array(range(len(names)) if labels is None else labels, np.int32)
    return ArraySource("some:data", np.zeros((len(found), 2, 2, 3), np.uint8), found, names)


def fitted(
    data: ArraySource, teacher: tuple[str, ...] | None, classes: int, spec: str = "m:teacher", **settings: Any
) -> FittedLabels:
    wanted = BuildSettings(teacher=("t",), data="some:data", out="c.zarr", **settings)
    model = Teacher(spec, nn.Identity(), "w.pth", "0", Preprocessing(input_size=8), teacher)
    return fit_labels(wanted, data, model, classes)


def labels(found: FittedLabels) -> list[int]:
    assert found.labels is not None
    return found.labels.tolist()


class TestBothNamed:
    def test_any_order_and_any_subset_are_matched(self) -> None:
        found = fitted(source("fox", "ant"), ("ant", "bee", "fox"), 3)
        assert labels(found) == [2, 0]
        assert found.class_names == ("ant", "bee", "fox")
        assert found.told["labels"] == "2 of the teacher's 3 classes, matched by name"
        assert found.data_names is None

    def test_no_label_stays_none(self) -> None:
        assert labels(fitted(source("fox", "ant", labels=[1, -1, 0]), ("ant", "fox"), 2)) == [0, -1, 1]

    def test_as_many_classes_of_which_one_has_another_name(self) -> None:
        told = r"(?s)1 of its 3 classes.*'zebra'.*class 1 .* is 'fox' here and 'eel' there.*'zebra = ant'"
        with pytest.raises(DataError, match=told) as error:
            fitted(source("ant", "fox", "zebra"), ("ant", "eel", "fox"), 3)
        for way in ("--class-map FILE", "--ignore-labels", "--classes both", "another --teacher"):
            assert way in str(error.value)

    def test_near_names_are_offered(self) -> None:
        with pytest.raises(DataError, match="nearest to 'zebra fish': 'zebrafish'"):
            fitted(source("zebra fish"), ("ant", "zebrafish", "zoo"), 3)

    def test_numbers_in_another_order_are_names(self) -> None:
        found = fitted(source("0", "1", "2", "3"), ("3", "2", "1", "0"), 4)
        assert labels(found) == [3, 2, 1, 0]

    def test_classes_without_pictures_are_told(self) -> None:
        found = fitted(source("ant", "bee", "cat", labels=[0, 2]), ("ant", "bee", "cat"), 3)
        assert found.told["labels"] == "3 classes (1 without pictures: 'bee'), matched by name"


class TestNumbersOnly:
    def test_as_many_are_taken_by_position(self) -> None:
        found = fitted(source("0", "1"), ("ant", "bee"), 2)
        assert labels(found) == [0, 1]
        assert found.class_names == ("ant", "bee")
        assert found.told["labels"] == "2 classes, matched by position"
        assert found.data_names == ("0", "1")
        assert fitted(source("ant", "bee"), None, 2).class_names == ("ant", "bee")

    def test_another_number_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"(?s)3 logits.* has 2 classes.*'some:data\?classes=3'"):
            fitted(source("0", "1"), None, 3)
        with pytest.raises(ConfigError, match=r"(?s)nobody named the teacher's.*'some:data\?classes=FILE'"):
            fitted(source("ant", "bee"), None, 3)
        with pytest.raises(ConfigError, match="the teacher's are called 'ant', 'bee', 'cat'"):
            fitted(source("0", "1"), ("ant", "bee", "cat"), 3)


class TestImageNet:
    def test_a_subset_by_torchvisions_words(self) -> None:
        found = fitted(source("espresso", "tench"), imagenet_names(), 1000)
        assert labels(found) == [967, 0]
        assert found.told == {"labels": "2 of the teacher's 1,000 classes, matched by name"}

    @pytest.mark.parametrize(
        ("spec", "origin"),
        [("timm:resnet10t", "the architecture's published weights"), ("m:f", "the teacher's 1,000 outputs")],
    )
    def test_names_are_assumed_where_they_hold_all_of_the_datas(self, spec: str, origin: str) -> None:
        found = fitted(source("espresso", "tench"), None, 1000, spec)
        assert labels(found) == [967, 0]
        assert found.class_names == imagenet_names()
        assert f"ImageNet-1k's, assumed from {origin}" in found.told["class names"]

    def test_assumed_names_refuse_nobodys_own_thousand(self) -> None:
        own = (*tuple(f"thing {number}" for number in range(999)), "tench")
        found = fitted(source(*own), None, 1000, "timm:resnet10t")
        assert labels(found) == list(range(1000))
        assert found.class_names == own

    def test_random_weights_mean_no_class(self) -> None:
        with pytest.raises(ConfigError, match="1,000 logits"):
            fitted(source("tench"), None, 1000, "timm:resnet10t", weights=("random",))

    def test_a_word_of_two_classes_is_refused_by_name(self) -> None:
        told = r"'crane' may be the teacher's class 134 \('crane bird'\) or 517 \('crane'\).*WordNet id"
        with pytest.raises(DataError, match=told):
            fitted(source("crane", "tench"), imagenet_names(), 1000)

    def test_two_folders_of_one_class_are_told(self) -> None:
        with pytest.raises(DataError, match=r"'TENCH' and 'tench' are one class.*--class-map"):
            fitted(source("TENCH", "tench"), imagenet_names(), 1000)


class TestClassMap:
    def write(self, tmp_path: Path, text: str) -> str:
        (tmp_path / "map.txt").write_text(text)
        return str(tmp_path / "map.txt")

    def test_names_numbers_and_what_is_known_without(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "my cat = cat\nworker = 1\nqueen = bee\n")
        data = source("ant", "my cat", "queen", "worker")
        found = fitted(data, ("ant", "bee", "cat", "dog"), 4, class_map=path)
        assert labels(found) == [0, 2, 1, 1]
        assert found.told["labels"] == f"4 classes, matched by {path}"

    def test_a_name_wins_over_a_number(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "x = 0\n")
        assert labels(fitted(source("x"), ("1", "0"), 2, class_map=path)) == [1]

    def test_numbers_do_for_a_teacher_whose_classes_have_no_names(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "x = 5\ny = 0\n")
        found = fitted(source("x", "y"), None, 7, class_map=path)
        assert (labels(found), found.class_names) == ([5, 0], None)

    def test_imagenets_words_do_for_an_imagenet_head(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "x = tench\ny = 967\n")
        found = fitted(source("x", "y"), None, 1000, class_map=path)
        assert (labels(found), found.class_names) == ([0, 967], imagenet_names())

    @pytest.mark.parametrize("target", ["gnu", "3", "-1"])
    def test_what_is_no_class_is_told(self, tmp_path: Path, target: str) -> None:
        path = self.write(tmp_path, f"x = {target}\n")
        with pytest.raises(DataError, match=f"class 'x' of some:data is to be '{target}'.*from 0 to 2"):
            fitted(source("x"), ("a", "b", "c"), 3, class_map=path)

    def test_with_ignored_labels_it_contradicts(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "x = a\n")
        with pytest.raises(ConfigError, match="give one"):
            fitted(source("x"), ("a", "b"), 2, class_map=path, ignore_labels=True)


def test_ignored_labels_keep_the_names_of_the_data() -> None:
    found = fitted(source("bad", "good"), imagenet_names(), 1000, ignore_labels=True)
    assert found.labels is None
    assert (found.own_class_names, found.class_names) == (("bad", "good"), imagenet_names())


class TestAgreement:
    CACHED = np.array([2, 2, 0, -1], np.int32)

    def test_names_decide(self) -> None:
        found = agreement(self.CACHED, ("a", "b", "c"), np.array([1, 1, 0, 0], np.int32), ("a", "c"))
        assert (found.labels.tolist(), found.how) == ([2, 2, 0, 0], "matched by name")

    def test_folders_that_changed_names_are_found_again_by_their_samples(self) -> None:
        ours = np.array([0, 0, 1, 1], np.int32)
        found = agreement(self.CACHED, ("a", "b", "c"), ours, ("x", "y"))
        assert found.labels.tolist() == [2, 2, 0, 0]
        moved = agreement(self.CACHED, ("a", "b", "c"), np.array([0, 0, 0, 1], np.int32), ("x", "y"))
        assert moved.labels.tolist() == [2, 2, 2, -1]

    def test_numbers_are_compared_as_they_are(self) -> None:
        ours = np.array([2, 1, 0, 0], np.int32)
        found = agreement(self.CACHED, ("a", "b", "c"), ours, ("0", "1", "2"))
        assert (found.labels.tolist(), found.how) == ([2, 1, 0, 0], "matched by position")

    def test_a_cache_is_opened_again_by_its_own_classes(self) -> None:
        stored = StoredClasses(["0", "1"], np.array([5, 3], np.int32), 7, None)
        found = fit_stored(stored, source("x", "y"))
        assert (labels(found), found.class_names) == ([5, 3], None)
