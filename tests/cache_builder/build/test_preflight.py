"""What is wrong with a command is told while torch is not imported: here it must not be."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image

from cache_builder.console.libraries import model_names, torchvision_sets
from cache_builder.console.names import SMALL_STUDENTS
from cache_builder.datasets import DATASETS, check_there, open_source
from cache_builder.format import KDCacheError
from cache_builder.format.locks.lock import claimed
from tests.trainer.replay_caches import write_replay_cache
from tests.trainer.run.test_report import run_config
from trainer import students

# Both programs in one process, in which running torch or what brings it is an error.
_PROGRAM = """
import json, sys
from importlib.machinery import PathFinder

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "torchvision", "timm", "accelerate"):
            spec = PathFinder.find_spec(name, path)
            spec.loader.exec_module = self.refuse
            return spec

    def refuse(self, module):
        raise SystemExit(f"{module.__name__} was imported")

sys.meta_path.insert(0, Forbidden())
from typer.testing import CliRunner
import cache_builder.cli.app, trainer.cli.app
programs = {"kdcache": cache_builder.cli.app.app, "kdtrain": trainer.cli.app.app}
for line in sys.stdin:
    program, *arguments = json.loads(line)
    ran = CliRunner().invoke(programs[program], arguments)
    print(json.dumps([ran.exit_code, ran.output + str(ran.exception)]))
"""


class Case(NamedTuple):
    """A command and what its message must say."""

    command: str
    said: str


_BUILD = "kdcache build --out c.zarr --data imagefolder:pictures --teacher"
_TRAIN = "kdtrain --out run --data imagefolder:pictures --student"
_OWN = "kdtrain --out run --data imagefolder:pictures --recipe plain --loss ce --student cnn3"
_TAUGHT = "kdtrain --out run --student cnn3 --loss kd --cache taught.zarr --data"
_COMPARE = "kdtrain compare --cache taught.zarr --data imagefolder:pictures --student cnn3"
_EVAL = "kdtrain eval ran"
CASES = (
    Case("kdcache build --teacher resnet50 --data imagefolder:nope --out c.zarr", "does not exist"),
    Case("kdcache build --teacher resnet50 --data cifar10:nope --out c.zarr", "does not hold"),
    Case("kdcache build --teacher resnet50 --data torchvision:Food101:nope --out c.zarr", "no folder nope"),
    Case("kdcache build --teacher resnet50 --data torchvision:Food11:nope --out c.zarr", "'Food101'"),
    Case("kdcache build --teacher resnet50 --data imagefolder:pictures --out pictures", "is not a cache"),
    Case(f"{_BUILD} vit_k", "'vit_l'"),
    Case(f"{_BUILD} resnet5", "'resnet50'"),
    Case(f"{_BUILD} timm:resnet5", "'resnet50'"),
    Case(f"{_BUILD} efficientnet_lite0", "timm:tf_efficientnet_lite0"),
    Case(f"{_BUILD} lite0.pth", "--weights lite0.pth"),
    Case(f"{_BUILD} cnn3", "trainer.students:cnn3"),
    Case(f"{_BUILD} nosuchpackage.models:make", "nosuchpackage"),
    Case(f"{_BUILD} resnet50 --weights nope.pth", "nope.pth does not exist"),
    Case(f"{_BUILD} resnet50 --weights empty", "holds no weights file"),
    Case(f"{_BUILD} resnet50", "Three ways on"),
    Case(f"{_BUILD} timm:resnet50.a1_in1k", "Three ways on"),
    Case("kdcache build --teacher vit_l --data imagefolder:pictures?classes=one.txt --out c", "list every"),
    Case("kdcache verify nope.zarr", "there is no cache here"),
    Case("kdcache extend nope.zarr --views 9", "there is no cache here"),
    Case("kdcache inspect nope.zarr", "there is no cache here"),
    Case("kdcache inspect nope.zarr --show a", "there is no cache here"),
    Case(f"{_TRAIN} resnet19", "'resnet18'"),
    Case(f"{_TRAIN} cnn3 --cache nope.zarr", "there is no cache here"),
    Case(f"{_TRAIN} cnn3 --cache http://127.0.0.1:1/v1/caches/a --patience-s 0", "did not answer"),
    Case(f"{_TRAIN} cnn3 --cache 127.0.0.1:1/v1/caches/a", "write http://127.0.0.1:1/v1/caches/a"),
    Case(f"{_TRAIN} tf_efficientnet_lite0", "timm.models:tf_efficientnet_lite0"),
    Case(f"{_TRAIN} tf_eficientnet_lite0", "timm.models:tf_efficientnet_lite0"),
    Case(f"{_OWN} --val-data imagefolder:nope", "does not exist"),
    Case(f"{_OWN} --val-data imagefolder:others", "'zebra'"),
    Case(f"{_OWN} --device gpu", "not one of auto, cpu, cuda"),
    Case(f"{_OWN} --optimizer adam", "--optimizer adam"),
    Case(f"{_OWN} --lr -1", "--lr -1"),
    Case(f"{_OWN} --mean 1,2", "three numbers"),
    Case(f"{_OWN} --recipe rcc-flip", "'rrc-flip'"),
    Case(f"{_OWN} --loss kdd", "unknown loss 'kdd'"),
    Case(f"{_OWN} --loss ce*1+kdd*1", "unknown loss 'kdd'"),
    Case(f"{_OWN} --out pictures", "is not empty and holds no run"),
    Case(f"{_OWN} --out locked", "is being trained by"),
    Case("kdtrain --out run --recipe plain --student cnn3 --data imagefolder:nope", "does not exist"),
    Case(f"{_TAUGHT} imagefolder:others", "does not match cache"),
    Case(f"{_TAUGHT} imagefolder:pictures --recipe plain", "are the cache's"),
    Case(f"{_TAUGHT} imagefolder:pictures --val-data imagefolder:others", "'zebra'"),
    Case(f"{_TAUGHT} imagefolder:renamed --classes data", "does not match cache"),
    Case(f"{_COMPARE} --val-data imagefolder:pictures --losses kd,kdd --out c", "item 2"),
    Case(f"{_COMPARE} --val-data imagefolder:others --losses kd --out c", "'zebra'"),
    Case(f"{_COMPARE} --val-data imagefolder:pictures --losses kd --out pictures", "holds no comparison"),
    Case(f"{_EVAL}", "no held-out data of its own"),
    Case(f"{_EVAL} --data imagefolder:others", "'zebra'"),
    Case(f"{_EVAL} --data imagefolder:pictures --weights nope.safetensors", "there are no weights"),
    Case(f"{_EVAL} --data imagefolder:others --cache taught.zarr", "does not match cache"),
    Case(f"{_EVAL} --data imagefolder:pictures --cache taught.zarr --view 7", "view 7 is out of range"),
    Case(f"{_EVAL} --data imagefolder:pictures --device gpu", "not one of auto, cpu, cuda"),
    Case("kdtrain eval nope", "holds no run"),
)


def write_run(folder: Path) -> None:
    """A run of a student of the classes wug and blicket."""
    folder.mkdir()
    settings = {"data": "imagefolder:pictures", "out": folder, "student": "cnn3", "image_size": 8}
    config = run_config(folder)
    own = config.settings.model_copy(update={**settings, "val_data": None})
    config = config.model_copy(
        update={"settings": own, "class_names": ("blicket", "wug"), "classes": 2, "caches": ()}
    )
    (folder / "config.json").write_text(config.model_dump_json())
    (folder / "best.safetensors").write_bytes(b"")


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[Case, tuple[int, str]]:
    """What every case ended with."""
    folder = tmp_path_factory.mktemp("preflight")
    for name in ("wug", "blicket"):
        (folder / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "pictures" / name / "a.png")
    (folder / "empty").mkdir()
    (folder / "one.txt").write_text("wug\n")
    for name in ("wug", "zebra"):
        (folder / "others" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "others" / name / "b.png")
    shutil.copytree(folder / "others" / "wug", folder / "renamed" / "gavagai")
    source = open_source(f"imagefolder:{folder / 'pictures'}")
    write_replay_cache(folder / "taught.zarr", source, image_size=8, views=2, top_k=2, sketch=False)
    write_run(folder / "ran")
    lines = "".join(json.dumps(case.command.split()) + "\n" for case in CASES)
    with claimed(folder / "locked", doing="trained"):
        ran = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            **{"cwd": folder, "input": lines, "capture_output": True, "text": True, "check": False},
        )
    answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(answers) == len(CASES), ran.stderr
    return dict(zip(CASES, answers, strict=True))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.command)
def test_it_is_told_before_torch_is_imported(case: Case, told: dict[Case, tuple[int, str]]) -> None:
    code, output = told[case]
    assert "was imported" not in output
    assert code in (1, 2)
    assert case.said in output


def test_names_read_from_sources_are_those_of_the_libraries() -> None:
    timm = pytest.importorskip("timm")
    import torchvision

    assert model_names("timm") == set(timm.list_models())
    assert model_names("torchvision") == set(torchvision.models.list_models(module=torchvision.models))
    assert torchvision_sets() == set(torchvision.datasets.__all__)


def test_our_own_students_are_known_before_torch() -> None:
    assert set(SMALL_STUDENTS) == set(students.SMALL_STUDENTS)


@pytest.mark.parametrize("kind", ["imagefolder", "webdataset"])
def test_a_data_set_that_is_there_is_not_gone_through(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    monkeypatch.setitem(DATASETS, kind, lambda _: pytest.fail("it was opened"))
    check_there(f"{kind}:{tmp_path / 'a.tar' if kind == 'webdataset' else tmp_path}?classes=natural")


@pytest.mark.parametrize(
    "spec", ["imagefolder:/nowhere", "webdataset:/nowhere-{0..3}.tar", "csv:/no.csv", "pq:/x"]
)
def test_a_data_set_that_is_not_there_is_told(spec: str) -> None:
    with pytest.raises(KDCacheError):
        check_there(spec)
