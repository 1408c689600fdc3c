"""A cache keeps the rule by which its pictures were decoded, and whoever reads them again obeys it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from cache_builder.console.progress import BuildProgress
from cache_builder.datasets import LimitedSource, open_source
from cache_builder.datasets.source import Wrapped
from cache_builder.exchange.extend import extend
from cache_builder.exchange.settings import ExtendSettings
from cache_builder.format import ConfigError, DataError, open_cache
from cache_builder.format.errors import FormatError
from cache_builder.format.manifest import parse_manifest
from cache_builder.format.root import read_body
from cache_builder.verify.run import verify
from cache_builder.verify.settings import VerifySettings
from tests.cache_builder.conftest import Build
from tests.cache_builder.photographs import cut
from trainer import ReplayDataset, TeacherCache
from trainer.teacher.several import check_caches_agree


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of photographs that lie on their side, with a note that says so."""
    folder = tmp_path_factory.mktemp("lying")
    exif = Image.Exif()
    exif[0x0112] = 6
    for index in range(6):
        Image.fromarray(cut(index, 30, 60)).save(folder / f"{index}.png", exif=exif.tobytes())
    return folder


@pytest.fixture
def caches(lying: Path, run_build: Build, tmp_path: Path) -> dict[int, Path]:
    """A cache by each rule; that of rule 1 is what earlier releases built."""
    found = {rule: tmp_path / f"{rule}.zarr" for rule in (1, 2)}
    run_build(found[1], lying, decoding=1, tail_rank=None)
    run_build(found[2], lying, tail_rank=None)
    return found


def probe_of(path: Path) -> NDArray[np.uint8]:
    return open_cache(path).probe_pixels


def test_a_new_cache_is_upright_and_says_so(caches: dict[int, Path]) -> None:
    for rule in (1, 2):
        assert (read_body(caches[rule]) or {})["input"]["decoding"] == rule
    assert np.abs(probe_of(caches[1]).astype(int) - probe_of(caches[2])).mean() > 10


def test_a_rule_that_nobody_knows_is_refused(caches: dict[int, Path]) -> None:
    body = read_body(caches[1]) or {}
    body["input"]["decoding"] = 3
    with pytest.raises(FormatError, match="decoding"):
        parse_manifest(body, "here")


@pytest.mark.parametrize("rule", [1, 2])
def test_a_student_sees_what_the_teacher_saw(caches: dict[int, Path], lying: Path, rule: int) -> None:
    with TeacherCache.open(str(caches[rule])) as cache:
        dataset = ReplayDataset(cache, f"imagefolder:{lying}")
        for (view, row), stored in zip(cache.manifest.probe.pairs, cache.probe_pixels, strict=True):
            assert np.abs(dataset[row, view].image.numpy().astype(int) - stored).max() <= 2


def test_an_open_source_is_decoded_by_the_caches_rule(caches: dict[int, Path], lying: Path) -> None:
    source = open_source(f"imagefolder:{lying}")
    with TeacherCache.open(str(caches[1])) as cache:
        for given in (source, LimitedSource(source, 6)):
            dataset = ReplayDataset(cache, given)
            assert dataset.source.read(0).value.shape == (3, 30, 60)
    assert source.read(0).value.shape == (3, 60, 30)


def test_a_data_set_of_ones_own_with_another_rule_is_refused(caches: dict[int, Path], lying: Path) -> None:
    own = Wrapped(open_source(f"imagefolder:{lying}"))
    with (
        TeacherCache.open(str(caches[1])) as cache,
        pytest.raises(DataError, match=r"rule 2, .* decoding=1\)"),
    ):
        ReplayDataset(cache, own)  # type: ignore[arg-type]


def test_teachers_of_two_rules_do_not_teach_together(caches: dict[int, Path]) -> None:
    said = pytest.raises(ConfigError, match=r"rules of decoding pictures differ \(1 and 2\).*--decoding")
    with TeacherCache.open(str(caches[1])) as one, TeacherCache.open(str(caches[2])) as two, said:
        check_caches_agree([one, two])


def test_a_build_of_an_earlier_release_goes_on_by_its_own_rule(
    caches: dict[int, Path], lying: Path, run_build: Build
) -> None:
    assert run_build(caches[1], lying, tail_rank=None).was_finished
    with pytest.raises(ConfigError, match=r"input\.decoding: 1 -> 2"):
        run_build(caches[1], lying, tail_rank=None, decoding=2)


def test_it_is_verified_and_extended_by_its_own_rule(caches: dict[int, Path], lying: Path) -> None:
    wanted = {"cache": str(caches[1]), "data": f"imagefolder:{lying}", "device": "cpu", "workers": 0}
    with BuildProgress(Console(file=io.StringIO())) as progress:
        report = verify(VerifySettings.model_validate(wanted), progress)
        extended = extend(ExtendSettings.model_validate(wanted | {"views": 4}), progress)
    assert not [check for check in report.checks if check.failed]
    assert extended.input.decoding == 1
