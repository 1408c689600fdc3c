from __future__ import annotations

import json

import pytest

from cache_builder.format import ConfigError, DataError
from trainer.run_folder import MetricsLog, RunFolder


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
