"""Labels and logits meet by name: the teacher's classes, the data's alone, and two heads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache_builder.datasets import open_source
from cache_builder.datasets.imagenet_names import imagenet_names
from cache_builder.format import ConfigError, DataError
from cache_builder.tensors.decode import Restricted
from tests.trainer.replay_caches import write_replay_cache
from trainer.run.classes import ClassPlan, held_out_labels, plan_classes, teacher_ids
from trainer.run.config import RunConfig
from trainer.run.evaluate import evaluate_run
from trainer.run.loop import train
from trainer.run.settings import TrainSettings
from trainer.teacher.client import TeacherCache

TEACHER = ("ant", "bee", "cat", "dog", "eel")


class Named:
    """A data set under other class names and labels."""

    def __init__(self, source, class_names, labels=None):
        self._source, self.class_names = source, class_names
        self.labels = source.labels if labels is None else labels

    def __len__(self):
        return len(self._source)

    def __getattr__(self, name):
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)


def folders(root, names, each=4):
    """Every class in a grey of its own, whatever its place among the folders."""
    for name in names:
        Path(root, name).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            level = 40 * (ord(name[0]) % 6) + index
            Image.new("RGB", (16, 16), (level,) * 3).save(Path(root, name, f"{index}.png"))
    return open_source(f"imagefolder:{root}")


@pytest.fixture
def images(tmp_path):
    return folders(tmp_path / "train", ("bee", "dog"))


def cached(tmp_path, source, labels, names=TEACHER, unlabelled=False):
    """A cache of a teacher of five classes, whose labels are its class ids."""
    taught = Named(source, names, None if labels is None else np.array(labels, np.int32))
    path = tmp_path / "t.zarr"
    write_replay_cache(path, taught, image_size=16, views=2, classes=5, unlabelled=unlabelled)
    return path


def settings(tmp_path, cache, out="run", **more):
    return TrainSettings.model_validate(
        {
            "data": f"imagefolder:{tmp_path / 'train'}", "out": tmp_path / out, "cache": str(cache),
            "student": "cnn3(width=2)", "epochs": 1, "batch_size": 4, "workers": 0, "device": "cpu",
            "tensorboard": False, "lr": 0.01, **more,
        }
    )  # fmt: skip


def stored(out):
    return RunConfig.model_validate_json((out / "config.json").read_text())


def test_ids_are_found_by_name(tmp_path, images):
    with TeacherCache.open(str(cached(tmp_path, images, [1] * 4 + [3] * 4))) as cache:
        assert teacher_ids(cache, images).tolist() == [1, 3]
        assert teacher_ids(cache, Named(images, ("bee", "fox"), np.array([0] * 4 + [-1] * 4))).tolist() == [
            1,
            -1,
        ]


def test_where_names_differ_the_labels_of_the_same_samples_tell(tmp_path, images):
    own = Named(images, ("n01", "n02"))
    with TeacherCache.open(str(cached(tmp_path, images, [1] * 4 + [3] * 4))) as cache:
        assert teacher_ids(cache, own).tolist() == [1, 3]


def test_samples_that_contradict_each_other_are_refused(tmp_path, images):
    own = Named(images, ("n01", "n02"))
    with (
        TeacherCache.open(str(cached(tmp_path, images, [1, 1, 1, 2, 3, 3, 3, 3]))) as cache,
        pytest.raises(DataError, match=r"1 samples differ .*'bee/3.png' has 'n01' and was 'cat'"),
    ):
        teacher_ids(cache, own)


def test_the_data_decide_whose_classes_a_student_has(tmp_path, images):
    other = Named(images, ("good", "bad"))
    with TeacherCache.open(str(cached(tmp_path, images, None, unlabelled=True))) as cache:
        assert plan_classes(None, [cache], images, True).choice == "teacher"
        assert plan_classes(None, [cache], other, True).choice == "both"
        assert plan_classes(None, [cache], other, False).choice == "teacher"
        with pytest.raises(DataError, match=r"2 of its 2 classes .*'good', 'bad'.*--classes both"):
            plan_classes("data", [cache], other, True)


def test_a_student_of_classes_that_nobody_named_is_told_the_way_out(images):
    unnamed = ClassPlan("teacher", 1000, None)
    with pytest.raises(DataError, match=r"the student has 1000, .*nobody named.*--classes both"):
        held_out_labels(images, unnamed)


def test_a_restriction_takes_columns_as_they_are():
    logits = torch.arange(10.0).view(2, 5)
    found = Restricted(torch.nn.Identity(), (3, 1))(logits)
    assert torch.equal(found, logits[:, [3, 1]])


@pytest.mark.parametrize("choice", ["teacher", "data", "both"])
def test_all_three_ways_train_and_are_evaluated_on_the_folders_labels(tmp_path, images, choice):
    cache = cached(tmp_path, images, [1] * 4 + [3] * 4)
    folders(tmp_path / "val", ("bee", "dog"))
    val = f"imagefolder:{tmp_path / 'val'}"
    train(settings(tmp_path, cache, classes=choice, loss="ce*1 + kd*1", val_data=val, epochs=2))
    config = stored(tmp_path / "run")
    assert config.class_choice == choice
    assert config.classes == (5 if choice == "teacher" else 2)
    assert config.teacher_classes == (5 if choice == "both" else None)
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"val_top1", "train_top1", "train_agreement"} <= rows[-1].keys()
    # The teacher of these caches is right about every label that is one of its classes.
    assert ("teacher_top1" in rows[-1]) == (choice != "both")
    assert evaluate_run(tmp_path / "run", val).samples == 8
    # Another folder beside them moves numbers, not names: one class is missing, which contradicts nothing.
    folders(tmp_path / "less", ("dog",))
    assert evaluate_run(tmp_path / "run", f"imagefolder:{tmp_path / 'less'}").samples == 4
    folders(tmp_path / "other", ("bee", "zebra"))
    with pytest.raises(DataError, match=r"'zebra'"):
        evaluate_run(tmp_path / "run", f"imagefolder:{tmp_path / 'other'}")


@pytest.mark.parametrize("choice", ["teacher", "data", "both"])
def test_labels_alone_are_learned_by_each_of_the_three_ways(tmp_path, images, choice):
    cache = cached(tmp_path, images, [1] * 4 + [3] * 4)
    train(settings(tmp_path, cache, classes=choice, loss="ce"))
    config = stored(tmp_path / "run")
    assert config.classes == (5 if choice == "teacher" else 2)
    assert config.settings.aux_head is None
    assert evaluate_run(tmp_path / "run", f"imagefolder:{tmp_path / 'train'}").samples == 8


def test_held_out_folders_may_bear_other_spellings_of_imagenets_classes(tmp_path):
    """WordNet ids beside words, whether the student has some of ImageNet's classes or all."""
    pytest.importorskip("timm")
    words = folders(tmp_path / "train", ("tench", "golden retriever"))
    ids = folders(tmp_path / "val", ("n01440764", "n02099601"))
    some = ClassPlan("data", 2, words.class_names)
    assert words.class_names == ("golden retriever", "tench")
    assert held_out_labels(ids, some).tolist() == [1] * 4 + [0] * 4
    every = ClassPlan("teacher", 1000, imagenet_names())
    assert held_out_labels(ids, every).tolist() == [0] * 4 + [207] * 4
    other = folders(tmp_path / "other", ("n01440764", "n02099712"))
    with pytest.raises(DataError, match=r"1 of its 2 classes .*'n02099712'"):
        held_out_labels(other, some)


def test_two_heads_want_a_loss_for_each(tmp_path, images):
    cache = cached(tmp_path, images, None, unlabelled=True)
    with pytest.raises(ConfigError, match="nothing trains the head of the data's own classes"):
        train(settings(tmp_path, cache, "a", classes="both", loss="kd(temperature=4)*1"))
    with pytest.raises(ConfigError, match="'dkd' compares labels with the teacher's logits"):
        train(settings(tmp_path, cache, "b", classes="both", loss="ce*1 + dkd*1"))


def test_the_second_head_learns_the_teacher_and_the_first_the_labels(tmp_path, images):
    """A loss of one head moves only that head."""
    cache = cached(tmp_path, images, None, unlabelled=True)
    heads = {}
    for name, loss in (("ce", "ce*1 + kd*0"), ("kd", "ce*0 + kd*1")):
        train(settings(tmp_path, cache, name, classes="both", loss=loss, weight_decay=0.0, seed=3))
        from safetensors.torch import load_file

        heads[name] = load_file(tmp_path / name / "last.safetensors")
    assert heads["ce"]["aux_head.weight"].shape == (5, heads["ce"]["aux_head.weight"].shape[1])
    classifier = [key for key, value in heads["ce"].items() if value.shape[:1] == (2,) and value.ndim == 2]
    assert not torch.equal(heads["ce"]["aux_head.weight"], heads["kd"]["aux_head.weight"])
    assert not torch.equal(heads["ce"][classifier[-1]], heads["kd"][classifier[-1]])


def test_classes_without_a_cache_are_the_datas(tmp_path, images):
    with pytest.raises(ConfigError, match="--classes both is about a teacher's classes"):
        plan_classes("both", [], images, True)
    assert plan_classes(None, [], images, True).names == ("bee", "dog")
