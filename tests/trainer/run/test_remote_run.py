"""A run on an object store is trained in a folder here, and goes on wherever its files can be read."""

from __future__ import annotations

import signal
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from cache_builder.format import ConfigError, KDCacheError, StorageError
from cache_builder.format.store import delete_object, open_store, write_from_file, write_many
from cache_builder.format.waiting import patience_at_most
from tests.object_store import BUCKET, bucket_may_go, counted_http, objects, s3_server
from tests.trainer.runs import STEPS_PER_EPOCH, assert_same_weights, config, write_digits_cache
from tests.trainer.test_resume import AtStep, metrics, send
from trainer.run import remote_run
from trainer.run.evaluate import evaluate_run
from trainer.run.inputs import claim_output
from trainer.run.loop import train
from trainer.run.remote_run import RemoteRun
from trainer.run.run_location import run_location, run_path

URL = f"s3://{BUCKET}/runs/a"


def settings(cache, out=URL, **changes):
    """No loader processes: where a store is open, they import everything anew."""
    return config(out, cache, workers=0, **changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return write_digits_cache(tmp_path_factory.mktemp("cache") / "digits.zarr")


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("runs") / "a"
    train(settings(cache, out, val_data="digits:test"))
    return out


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The folder that runs are at hand in."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with s3_server() as client:
        for key in objects():
            client.delete_object(Bucket=BUCKET, Key=key)
        yield folder


def downloaded(folder: Path) -> Path:
    """All objects of the run as files."""
    for key, data in objects("runs/a").items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)
    return folder


def stopped(cache, step):
    with pytest.raises(KeyboardInterrupt):
        train(settings(cache, val_data="digits:test"), display=AtStep(step, send(signal.SIGINT)))


def test_a_run_on_a_store_is_the_run_on_a_disk(scratch, tmp_path, cache, on_disk):
    result = train(settings(cache, val_data="digits:test"))
    assert result.out == URL
    run = downloaded(tmp_path / "run")
    assert_same_weights(run, on_disk)
    names = {path.relative_to(on_disk).as_posix() for path in on_disk.rglob("*") if path.is_file()}
    assert set(objects("runs/a")) == names
    assert URL in (run / "report.md").read_text()
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("step", [2, STEPS_PER_EPOCH + 3])
def test_a_stopped_run_goes_on_from_what_the_store_has(scratch, tmp_path, cache, on_disk, step):
    stopped(cache, step)
    assert list(scratch.iterdir()) == []
    train(settings(cache, val_data="digits:test"), resume=True)
    assert_same_weights(downloaded(tmp_path / "run"), on_disk)


def test_a_checkpoint_that_was_being_copied_is_not_taken(scratch, tmp_path, cache, on_disk):
    stopped(cache, STEPS_PER_EPOCH + 3)
    steps = sorted({key.split("/")[1] for key in objects("runs/a") if key.startswith("checkpoints/")})
    delete_object(open_store(URL, read_only=False), f"checkpoints/{steps[-1]}/checksums.json")
    remote = RemoteRun(URL)
    remote.fetch(resume=True)
    assert sorted(path.name for path in (remote.folder / "checkpoints").iterdir()) == steps[:-1]
    remote.close()
    train(settings(cache, val_data="digits:test"), resume=True)
    assert_same_weights(downloaded(tmp_path / "run"), on_disk)


def test_the_bytes_of_a_checkpoint_come_before_its_checksums_and_go_after_them(scratch, cache):
    with counted_http() as seen:
        train(settings(cache, keep_checkpoints=1))
    for step in (STEPS_PER_EPOCH, 2 * STEPS_PER_EPOCH):
        of_step = [line.split("/") for line in seen if f"step-{step:08d}" in line]
        puts = [parts[-1] for parts in of_step if parts[0].startswith("PUT")]
        deletions = [parts[-1] for parts in of_step if parts[0].startswith("DELETE")]
        assert puts[-1] == deletions[0] == "checksums.json"
        assert sorted(puts) == sorted(deletions)


@pytest.mark.parametrize(
    "killed_before", ["metrics.jsonl", "weights.safetensors", "checksums.json", "best", "last"]
)
def test_a_run_that_was_killed_while_it_was_copied_ends_as_one_that_was_not(
    scratch, tmp_path, cache, on_disk, killed_before
):
    """Before each kind of object, when it is copied for the second time."""
    seen: list[str] = []

    def put(store, key, path):
        seen.append(key)
        if killed_before in key and sum(killed_before in one for one in seen) == 2:
            raise Killed
        write_from_file(store, key, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote_run, "write_from_file", put)
        with pytest.raises(Killed):
            train(settings(cache, val_data="digits:test"))
    result = train(settings(cache, val_data="digits:test"), resume=True)
    run = downloaded(tmp_path / "run")
    assert_same_weights(run, on_disk)
    assert metrics(run) == metrics(on_disk)
    assert result.last.top1 == metrics(on_disk)[-1]["val_top1"]
    steps = {path.name for path in (on_disk / "checkpoints").iterdir()}
    assert {key.split("/")[1] for key in objects("runs/a") if key.startswith("checkpoints/")} == steps


def test_checkpoints_of_a_release_without_checksums_are_not_passed_over(scratch, cache):
    stopped(cache, STEPS_PER_EPOCH + 3)
    store = open_store(URL, read_only=False)
    for key in objects("runs/a"):
        if key.endswith("checksums.json"):
            delete_object(store, key)
    with ExitStack() as stack:
        folder = claim_output(settings(cache), resume=True, stack=stack)
        newest = folder.checkpoints.newest()
    assert newest is not None
    assert newest.step == STEPS_PER_EPOCH + 3


def test_what_vanished_here_stays_there(scratch, cache):
    """As files that a cleaner of temporary folders took."""
    stopped(cache, STEPS_PER_EPOCH + 1)
    with ExitStack() as stack:
        folder = claim_output(settings(cache), resume=True, stack=stack)
        before = objects("runs/a").keys()
        for name in ("config.json", "last.safetensors"):
            (folder.path / name).unlink()
        folder.publish()
        assert objects("runs/a").keys() == before


def test_what_a_killed_process_left_here_goes_with_the_next(scratch, cache):
    left, chosen = scratch / "kdtrain-left", scratch / "kdtrain-kept"
    for folder in (left, chosen):
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    (left / ".lock").touch()
    train(settings(cache, epochs=1))
    assert list(scratch.iterdir()) == [chosen]


def test_what_is_there_already_is_not_taken_over(scratch, cache):
    stopped(cache, 1)
    before = objects("runs/a")
    with pytest.raises(ConfigError, match=f"{URL} already holds a run: add --resume"):
        train(settings(cache))
    assert objects("runs/a") == before


@pytest.mark.parametrize("resume", [True, False])
def test_a_folder_of_something_else_is_left_alone(scratch, cache, resume):
    write_many(open_store(URL, read_only=False), {"thesis.tex": b"a"})
    with pytest.raises(ConfigError, match="is not empty and holds no run"):
        train(settings(cache), resume=resume)
    assert objects("runs/a") == {"thesis.tex": b"a"}


def test_files_of_others_beside_a_run_stay(scratch, cache):
    stopped(cache, 1)
    write_many(open_store(URL, read_only=False), {"notes.md": b"a", "checkpoints/mine/b": b"c"})
    train(settings(cache, val_data="digits:test"), resume=True)
    assert objects("runs/a")["notes.md"] == b"a"
    assert objects("runs/a")["checkpoints/mine/b"] == b"c"


def test_one_process_at_a_time(scratch, cache):
    with ExitStack() as stack:
        claim_output(settings(cache), resume=False, stack=stack)
        with pytest.raises(ConfigError, match="is being"):
            train(settings(cache))


class Killed(BaseException):
    """What no code of ours catches."""


class Lost:
    """The claim of a process that slept for longer than its lease lasts."""

    def check(self):
        raise KDCacheError("lost")

    def ready(self):
        """Nobody waits for it."""


def test_a_run_that_lost_its_claim_writes_nothing(scratch):
    remote = RemoteRun(URL, Lost())
    (remote.folder / "config.json").write_text("{}")
    with pytest.raises(KDCacheError, match="lost"):
        remote.publish()
    assert objects("runs/a") == {}
    remote.close()
    assert (remote.folder / "config.json").exists()  # it is nowhere else


def test_a_store_that_stays_away_costs_nothing_that_was_trained(scratch, tmp_path, cache, on_disk):
    whole = pytest.raises(StorageError, match="the run is whole in")
    with patience_at_most(0), bucket_may_go() as goes, whole as caught:
        train(settings(cache, val_data="digits:test"), display=AtStep(STEPS_PER_EPOCH + 1, goes))
    (folder,) = scratch.iterdir()
    assert str(folder) in str(caught.value)
    train(settings(cache, folder, val_data="digits:test"), resume=True)
    assert_same_weights(folder, on_disk)


def test_a_run_on_a_store_is_evaluated(scratch, cache, on_disk):
    train(settings(cache, val_data="digits:test"))
    there, here = evaluate_run(URL, None), evaluate_run(on_disk, None)
    assert there.weights == f"{URL}/best.safetensors"
    assert (there.top1, there.nll) == (here.top1, here.nll)
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("out", ["s3://bucket", "s3://bucket/", "gs://bucket"])
def test_a_whole_bucket_is_no_run(out):
    with pytest.raises(ConfigError, match="is a whole bucket"):
        run_location(out)


def test_local_places_are_what_they_were(tmp_path):
    assert run_location(tmp_path) == run_location(f"file://{tmp_path}") == str(tmp_path)
    assert run_path(str(tmp_path)) == tmp_path
    assert run_location("s3://bucket/run/") == "s3://bucket/run"
