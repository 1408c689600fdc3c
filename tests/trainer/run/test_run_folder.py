from __future__ import annotations

import json

import pytest

from cache_builder.format import ConfigError, DataError
from trainer.comparison.settings import CompareSettings
from trainer.run.run_folder import MetricsLog, RunFolder
from trainer.run.settings import TrainSettings


def test_rows_survive_and_are_rewound(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder, 0, tensorboard=False)
    for step in (5, 10, 15):
        log.write({"step": step, "value": step / 2})
    log.close()
    assert [row["step"] for row in folder.read_metrics()] == [5, 10, 15]
    MetricsLog(folder, 10, tensorboard=False).close()
    assert [row["step"] for row in folder.read_metrics()] == [5, 10]


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "val')
    folder = RunFolder(tmp_path)
    assert folder.read_metrics() == [{"step": 1}]
    log = MetricsLog(folder, 1, tensorboard=False)
    log.write({"step": 2})
    log.close()
    assert [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]


def test_a_free_folder_is_new_or_empty_or_holds_drift_pictures(tmp_path):
    RunFolder(tmp_path / "new").check_free(resume=False)
    RunFolder(tmp_path).check_free(resume=False)
    (tmp_path / "render-drift").mkdir()
    (tmp_path / ".config.json.partial").write_text("{")  # killed while it noted its settings
    RunFolder(tmp_path).check_free(resume=False)
    RunFolder(tmp_path).check_free(resume=True)


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "a").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        RunFolder(tmp_path / "a").check_free(resume=False)


def test_a_configuration_of_something_else_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model": "mine"}')
    with pytest.raises(DataError, match="not the configuration of a run"):
        RunFolder(tmp_path).stored_config()


def test_a_configuration_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "config.json").write_bytes(b"{\xff}")
    with pytest.raises(DataError, match="not the configuration of a run"):
        RunFolder(tmp_path).stored_config()


def test_a_damaged_line_of_metrics_costs_that_line_alone(tmp_path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n{"st\xffp": 2}\n3\n{"step": 4}\n')
    assert RunFolder(tmp_path).read_metrics() == [{"step": 1}, {"step": 4}]


def test_resuming_what_is_not_there_is_told(tmp_path, caplog):
    RunFolder(tmp_path / "rum").check_free(resume=True)
    assert "no run in" in caplog.text
    assert "rum" in caplog.text


@pytest.mark.parametrize("out", ["s3:/bucket/run", "s3://bucket", "", " "])
def test_what_is_no_place_for_a_run(out):
    with pytest.raises(ConfigError, match=r"lost a slash|whole bucket|empty"):
        TrainSettings.model_validate({"data": "digits:train", "out": out})


@pytest.mark.parametrize("out", ["s3://bucket/run", "gs://a/b"])
def test_a_comparison_lies_on_a_disk(out):
    given = {"data": "digits:train", "val_data": "digits:test", "cache": ["c.zarr"], "losses": "kd"}
    with pytest.raises(ConfigError, match=f"--out {out}: this command writes to local disks only"):
        CompareSettings.model_validate(given | {"out": out})
