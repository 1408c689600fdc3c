"""The face: its names, what importing them costs, and whose ``trainer`` is found."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, version
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kdcache
from cache_builder.console.lazy import LazyProgram

ROOT = Path(__file__).parents[1]
USERS = 'raise SystemExit("the trainer of the user was imported")\n'


def python(*words: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that also finds a checkout which is not installed."""
    paths = [*variables.pop("PYTHONPATH", "").split(os.pathsep), str(ROOT)]
    environment = {**os.environ, **variables, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """A working directory with a ``trainer.py`` that is not ours."""
    (tmp_path / "trainer.py").write_text(USERS)
    return tmp_path


@pytest.mark.parametrize("name", kdcache.__all__)
def test_every_name_is_there_and_documented(name: str) -> None:
    assert name in dir(kdcache)
    assert getattr(kdcache, name).__doc__


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Teacher'"):
        kdcache.Teacher  # noqa: B018


def test_the_version_is_that_of_the_package() -> None:
    assert kdcache.__version__ == version("kdcache")


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import kdcache", ("torch", "numpy", "zarr", "typer", "pydantic")),
        ("import kdcache; kdcache.open_cache, kdcache.BuildSettings", ("torch", "typer")),
        ("import kdcache; kdcache.TeacherCache", ("torch",)),
        ("import kdcache; kdcache.commands()", ("torch", "numpy", "zarr", "pydantic", "trainer.cli")),
        ("import cache_builder.views.recipes, cache_builder.views.configuration", ("torch", "scipy")),
    ],
)
def test_importing_loads_nothing_heavy(statement: str, heavy: tuple[str, ...]) -> None:
    ran = python("-c", f"import sys; {statement}; print([m for m in {heavy!r} if m in sys.modules])")
    assert ran.stdout.strip() == "[]", ran.stderr


def test_a_library_that_is_missing_is_named_with_its_extra() -> None:
    ran = python("-c", "import sys; sys.modules['torch'] = None; import kdcache; kdcache.RecordDecoder")
    assert ran.stderr.splitlines()[-1] == (
        "ImportError: kdcache.RecordDecoder needs torch: pip install 'kdcache[train]'"
    )


class TestAnotherTrainer:
    def test_in_the_working_directory_shadows_no_command(self, users_folder: Path) -> None:
        listed = python("-m", "kdcache", "train", "losses", cwd=users_folder)
        assert listed.returncode == 0, listed.stderr
        assert "dkd" in listed.stdout

    def test_in_the_working_directory_shadows_no_name(self, users_folder: Path) -> None:
        ran = python("-c", "import kdcache; print(kdcache.LOSSES['kd'].__module__)", cwd=users_folder)
        assert ran.stdout == "trainer.losses.kd\n", ran.stderr

    def test_in_the_working_directory_shadows_nothing_in_a_spawned_process(self, users_folder: Path) -> None:
        # What multiprocessing does first in a process that `python -m kdcache` spawned.
        begin = "import runpy; runpy.run_module('kdcache', run_name='__mp_main__', alter_sys=True)"
        ran = python("-c", f"{begin}; import trainer; print(trainer.__file__)", cwd=users_folder)
        assert ran.stdout == f"{ROOT / 'trainer' / '__init__.py'}\n", ran.stderr

    def test_first_on_the_path_shadows_nothing(self, users_folder: Path, tmp_path: Path) -> None:
        installed = tmp_path / "installed"
        (installed / "trainer").mkdir(parents=True)
        (installed / "trainer" / "__init__.py").write_text(USERS)
        for words in (("-m", "kdcache", "train", "--version"), ("-c", "import kdcache; kdcache.Loss")):
            ran = python(*words, PYTHONPATH=str(installed))
            assert ran.returncode == 0, ran.stderr

    def test_that_was_imported_before_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "trainer.py").write_text("")
        ran = python("-c", "import trainer, kdcache; kdcache.TeacherCache", cwd=tmp_path)
        assert ran.stderr.splitlines()[-1] == (
            f"ImportError: {tmp_path / 'trainer.py'} has the name of kdcache's package 'trainer' and was "
            "imported before it: rename it"
        )

    def test_that_was_imported_before_is_no_matter_where_ours_is_not_needed(self, tmp_path: Path) -> None:
        (tmp_path / "trainer.py").write_text("")
        ran = python("-c", "import trainer, kdcache; kdcache.open_cache", cwd=tmp_path)
        assert ran.returncode == 0, ran.stderr

    def test_without_a_file_is_named_by_its_folder(self, tmp_path: Path) -> None:
        (tmp_path / "trainer").mkdir()
        begin = f"import sys; path = sys.path[:]; sys.path[:] = [{str(tmp_path)!r}]; import trainer"
        ran = python("-c", f"{begin}; sys.path[:] = path; import kdcache; kdcache.Loss")
        assert ran.stderr.splitlines()[-1].startswith(f"ImportError: {tmp_path / 'trainer'} has the name of")


class TestCommands:
    def test_train_is_kdtrain(self) -> None:
        from trainer.cli.app import app

        ours = CliRunner().invoke(app, ["losses", "dkd"])
        ran = python("-m", "kdcache", "train", "losses", "dkd")
        assert ran.stdout == ours.stdout
        assert "Usage: kdcache train" in python("-m", "kdcache", "train", "--help").stdout

    def test_the_commands_of_a_first_hour_come_first(self) -> None:
        assert list(kdcache.commands().commands)[:3] == ["build", "serve", "train"]
        assert isinstance(kdcache.commands().commands["train"], LazyProgram)

    def test_a_refusal_is_a_sentence_and_an_exit_code(self) -> None:
        ran = python("-m", "kdcache", "train", "--data", "digits")
        assert (ran.returncode, ran.stderr) == (2, "error: --out is missing; --help shows examples\n")

    @pytest.mark.parametrize(
        "words",
        [
            ("-m", "kdcache", "--version"),
            ("-m", "kdcache", "train", "--version"),
            ("-m", "trainer", "--version"),
            ("-c", "import sys; sys.argv[1:] = ['--version']; import kdcache; kdcache.kdtrain()"),
        ],
    )
    def test_the_version(self, words: tuple[str, ...]) -> None:
        assert python(*words).stdout == f"kdcache {version('kdcache')}\n"

    def test_the_scripts_are_the_faces(self) -> None:
        import cache_builder.cli
        import trainer.cli

        scripts = {
            script.name: script.load() for script in entry_points(group="console_scripts", module="kdcache")
        }
        assert scripts == {"kdcache": kdcache.main, "kdtrain": kdcache.kdtrain}
        # What they were before stays importable.
        assert callable(cache_builder.cli.main)
        assert callable(trainer.cli.main)


def test_the_wheel_holds_the_face_and_the_packages(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    built = python("-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path))
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        scripts = file.read(next(name for name in names if name.endswith("entry_points.txt"))).decode()
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {
        "cache_builder",
        "kdcache.py",
        "logit_server",
        "trainer",
    }
    assert "trainer/losses/selftest.json" in names
    assert "cache_builder/format/FORMAT.md" in names
    assert "kdcache = kdcache:main" in scripts
    assert "kdtrain = kdcache:kdtrain" in scripts
