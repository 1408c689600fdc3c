"""The commands as their users meet them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cache_builder.cli.app import app
from cache_builder.format.reader import open_cache
from tests.cache_builder.command import ROOT, arguments, environment, run, start, wait_for
from tests.cache_builder.test_kill import has_tiles
from tests.cache_builder.trees import contents, objects


def invoke(*command: str) -> Result:
    """Run in this process, which has torch imported already."""
    return CliRunner().invoke(app, command, env={"COLUMNS": "200", "TERM": "dumb"})


class TestHelp:
    def test_answers_without_heavy_imports(self) -> None:
        program = (
            "import sys; from typer.testing import CliRunner\n"
            "from cache_builder.cli.app import app as builder; from trainer.cli.app import app as trainer\n"
            "for words in (' build serve inspect demo verify export import merge extend'.split(' ')):\n"
            "    assert CliRunner().invoke(builder, [*words.split(), '--help']).exit_code == 0\n"
            "for words in ('', 'eval', 'losses', 'compare'):\n"
            "    assert CliRunner().invoke(trainer, [*words.split(), '--help']).exit_code == 0\n"
            "print({'torch', 'zarr', 'numpy', 'PIL'} & set(sys.modules))"
        )
        asked = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
        )
        assert (asked.stdout, asked.stderr) == ("set()\n", "")

    def test_of_everything(self) -> None:
        asked = run("--help")
        assert asked.returncode == 0
        for command in ("build", "serve", "inspect", "demo"):
            assert command in asked.stdout

    def test_build_teaches(self) -> None:
        text = invoke("build", "--help").output
        for word in (
            "vit_l",
            "imagefolder:",
            "rrc-flip",
            "mixup:alpha=0.2",
            "trivialaugment",
            "FILE.toml",
            "strong_views",
            "resnet50",
            "package.module:factory",
            "--on-error",
            "continues",
        ):
            assert word in text

    def test_nothing_asked_shows_the_help(self) -> None:
        assert "Usage: " in invoke().output


class TestBuild:
    def test_says_what_it_did(self, photos: Path, tmp_path: Path) -> None:
        out = tmp_path / "my cache.zarr"
        ended = run(*arguments(out, photos, "--name", "mine", teacher="small"))
        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        manifest = open_cache(out).manifest
        for said in (
            "calibrating: 240 of 240",
            "building: 240 of 240",
            "80 samples x 3 views",
            "bytes per view",
            "teacher tests.cache_builder.models:small, weights the factory's own, 16 px, fp32",
            "teacher top-1",
            manifest.codec.described(40),
            f"cache_id {manifest.cache_id}",
            f"look: kdcache inspect '{out}'",
        ):
            assert said in ended.stdout
        assert "\x1b" not in ended.stdout

    def test_finished(self, by_command: Path, photos: Path) -> None:
        before = objects(by_command)
        ended = invoke(*arguments(by_command, photos))
        assert ended.exit_code == 0
        assert "is finished already" in ended.output
        assert objects(by_command) == before

    def test_other_settings(self, by_command: Path, photos: Path) -> None:
        ended = invoke(*arguments(by_command, photos, "--seed", "6"))
        assert ended.exit_code == 2
        assert "views.seed: 5 -> 6" in ended.output
        assert "use the stored settings to continue it, or another --out" in ended.output

    @pytest.mark.parametrize(
        ("flags", "code", "said"),
        [
            (["--input-size", "0"], 2, "greater than or equal to 1"),
            (["--input-size", "1"], 2, "cannot take an image of 1 x 1 pixels"),
            (["--mean", "1,2"], 2, "--mean 1,2: expected three numbers such as 0.485,0.456,0.406, got 2"),
            (["--mean", "grey"], 2, "--mean grey: expected three numbers such as 0.485,0.456,0.406"),
            (["--mean", "nan,0,0"], 2, "--mean nan: Input should be a finite number"),
            (["--std", "0,0,0"], 2, "--std 0,0,0: expected three numbers"),
            (["--seed", str(2**64)], 2, "--seed 18446744073709551616: Input should be less than"),
            (["--views", "0"], 2, "greater than or equal to 1"),
            (["--device", "gpu"], 2, "device 'gpu' is not one of auto, cpu, cuda, cuda:N"),
            (["--device", "cuda:97"], 2, "CUDA device(s)"),
            (["--precision", "int8"], 2, "precision 'int8' is not one of auto, fp32, bf16, fp16"),
            (["--on-error", "maybe"], 2, "--on-error maybe: Input should be 'fail' or 'skip'"),
            (["--recipe", "plain"], 2, "use --views 1"),
            (["--recipe", "rrcflip"], 2, "did you mean 'rrc-flip'"),
            (["--recipe", "rrc-flip:flip=7"], 2, "flip: Input should be less than or equal to 1"),
            (["--name", "a b"], 2, "cannot be the name of a cache"),
            (["--out", ""], 2, "--out is empty"),
            (["--out", "tests"], 2, "tests exists and is not a cache; nothing was touched"),
            (["--out", "nowhere/.x.zarr"], 2, "give one with --name"),
            (["--out", "pyproject.toml/x.zarr"], 2, "is not a folder"),
            (["--out", "foo://x/y.zarr"], 2, "Protocol not known: foo"),
            (["--data", "imagefolder:/nowhere"], 1, "image folder '/nowhere' does not exist"),
            (["--data", "imagefolders:/nowhere"], 2, "did you mean 'imagefolder'"),
            (["--data", "digits:valid"], 1, "digits has the parts 'train' and 'test'"),
            (["--teacher", "vit_xl", "--ignore-labels"], 2, "did you mean 'vit_l'"),
            (["--teacher", "no.such:thing"], 2, "No module named 'no'"),
            (["--teacher", "tests.cache_builder.models:broken"], 2, "RuntimeError: no checkpoint for 40"),
            (["--teacher", "tests.cache_builder.models:fixed_60"], 2, "must have the same classes"),
            (["--teacher", "timm:resnet10"], 2, "did you mean 'resnet10t'"),
            (["--weights", "random", "--weights", "random"], 2, "given 2 time(s) for 1 teacher(s)"),
            (["--weights", "/nowhere.pt"], 1, "weights file /nowhere.pt does not exist"),
            (["--tail-rank", "40"], 2, "--tail-rank 40: the teacher has 40 classes"),
            (["--views", "1", "--limit", "1"], 1, "--top-k 40 stores every class"),
            (["--batch-size", "many"], 2, "valid integer"),
            (["--no-such-flag"], 2, "No such option"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, list) else "",
    )  # fmt: skip
    def test_refused_with_a_sentence(
        self, photos: Path, tmp_path: Path, flags: list[str], code: int, said: str
    ) -> None:
        ended = invoke(*arguments(tmp_path / "new.zarr", photos, teacher="small", workers=0), *flags)
        assert isinstance(ended.exception, SystemExit)
        assert ended.exit_code == code
        assert said in ended.output
        assert "Traceback" not in ended.output
        assert not (tmp_path / "new.zarr").exists()

    def test_required_flags(self) -> None:
        ended = invoke("build", "--teacher", "resnet18")
        assert ended.exit_code == 2
        assert ended.stderr == "error: --data and --out are missing; --help shows examples\n"
        ended = invoke("build")
        assert ended.stderr == "error: --teacher, --data and --out are missing; --help shows examples\n"

    def test_every_wrong_name_is_told_at_once(self) -> None:
        names = "--teacher resnet17 --codec topk --recipe rcc-flip --device gpu --precision fp8 --views 0"
        ended = invoke("build", "--data", "digits", *names.split())
        said = ["--out is missing", "--views 0: ", "did you mean 'resnet1", "unknown codec 'topk'"]
        said += ["did you mean 'rrc-flip'", "device 'gpu' is not one of", "precision 'fp8' is not one of"]
        assert (ended.exit_code, [text for text in said if text not in ended.stderr]) == (2, [])
        assert len(ended.stderr.splitlines()) == 7

    def test_an_unreadable_image(self, own_photos: Path, tmp_path: Path) -> None:
        bad = own_photos / "class_03" / "img_0.jpg"
        bad.write_bytes(b"no image")
        command = arguments(tmp_path / "new.zarr", own_photos, teacher="small")
        ended = invoke(*command)
        assert ended.exit_code == 1
        assert ended.stderr.startswith(f"error: cannot read image {bad}")
        assert "--on-error skip" in ended.stderr
        skipped = invoke(*command, "--on-error", "skip")
        assert skipped.exit_code == 0
        assert "1 unreadable samples are marked invalid" in skipped.output


@pytest.mark.parametrize(
    ("sent", "code", "group"),
    [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, True), (signal.SIGTERM, 143, False)],
    ids=["Ctrl-C", "SIGTERM to all", "SIGTERM to the main process"],
)
def test_signals_end_a_build_that_can_be_continued(
    by_command: Path, photos: Path, tmp_path: Path, sent: signal.Signals, code: int, group: bool
) -> None:
    out = tmp_path / "cache.zarr"
    with start(*arguments(out, photos)) as process:
        wait_for(process, lambda _: has_tiles(out, 3))
        (os.killpg if group else os.kill)(process.pid, sent)
        process.wait()
        assert process.stderr is not None
        told = process.stderr.read()
    assert process.returncode == code
    assert (
        told
        == "error: interrupted; what was committed is kept, and the same command continues or starts anew\n"
    )
    kept = open_cache(out, allow_partial=True).commits
    assert 3 <= len(kept) < 10
    assert invoke(*arguments(out, photos, teacher="slow")).exit_code == 0
    assert contents(out) == contents(by_command)
    assert {key: open_cache(out).commits[key] for key in kept} == kept


class TestInspect:
    def test_json(self, by_command: Path) -> None:
        asked = run("inspect", str(by_command), "--json", "--view", "2")
        assert (asked.returncode, asked.stderr) == (0, "")
        assert asked.stdout.count("\n") == 1
        body = json.loads(asked.stdout)
        assert body["manifest"]["cache_id"] == open_cache(by_command).manifest.cache_id
        assert body["complete"] is True
        assert body["quality"]["views"] == 240
        assert body["sample"]["view"] == 2

    def test_for_people(self, by_command: Path) -> None:
        text = invoke("inspect", str(by_command), "--sample", "class_07/img_1.jpg").output
        assert "class_07/img_1.jpg, view 0, row 15, label 7 class_07" in text
        assert "teacher top-1" in text

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (["--sample", "nope.jpg"], "'nope.jpg'"),
            (["--view", "3"], "view 3 is out of range: the cache has views 0 to 2"),
        ],
    )
    def test_refused(self, by_command: Path, flags: list[str], said: str) -> None:
        ended = invoke("inspect", str(by_command), *flags)
        assert ended.exit_code == 1
        assert said in ended.output

    @pytest.mark.parametrize("where", ["nowhere", "."])
    def test_no_cache(self, where: str) -> None:
        ended = invoke("inspect", where)
        assert ended.exit_code == 1
        assert "there is no cache here" in ended.output

    def test_a_reader_that_goes_away(self, by_command: Path) -> None:
        command = f"{shutil.which('kdcache', path=str(Path(sys.executable).parent))} inspect {by_command}"
        piped = subprocess.run(
            ["/bin/sh", "-c", f"{command} | head -c 1"],
            capture_output=True,
            text=True,
            env=environment(),
            check=False,
        )
        assert piped.stderr == ""

    def test_a_flipped_bit_in_every_shard_is_told(self, by_command: Path, tmp_path: Path) -> None:
        """End to end: build, flip, inspect. ``tests/format`` flips every kind of bit."""
        out = tmp_path / "cache.zarr"
        shutil.copytree(by_command, out)
        shards = sorted(
            path for path in out.glob("**/c/**/*") if path.is_file() and "header" not in path.name
        )
        tiled = [path for path in shards if path.relative_to(out).parts[0] == "records"]
        assert len(tiled) == 2 * 10
        for index, path in enumerate(tiled[::3]):
            whole = path.read_bytes()
            damaged = bytearray(whole)
            damaged[(37 * index) % len(whole)] ^= 1 << (index % 8)
            path.write_bytes(damaged)
            ended = invoke("inspect", str(out), "--json")
            block = int(path.parts[path.parts.index("c") + 2])
            assert ended.exit_code == 1
            assert f"rows {8 * block}-{8 * block + 7}" in ended.output
            path.write_bytes(whole)
        assert invoke("inspect", str(out)).exit_code == 0

    def test_a_flipped_bit_through_the_real_command(self, by_command: Path, tmp_path: Path) -> None:
        out = tmp_path / "cache.zarr"
        shutil.copytree(by_command, out)
        shard = out / "records/logits/view/c" / "0" / "2" / "0"
        data = bytearray(shard.read_bytes())
        data[20] ^= 4
        shard.write_bytes(data)
        asked = run("inspect", str(out))
        assert asked.returncode == 1
        assert "views 0-2, rows 16-23" in asked.stderr
        assert "Traceback" not in asked.stderr


class TestServe:
    def test_no_cache(self, tmp_path: Path) -> None:
        ended = invoke("serve", str(tmp_path / "none.zarr"))
        assert ended.exit_code == 1
        assert "there is no cache here" in ended.output
