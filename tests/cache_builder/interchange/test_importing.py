from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from cache_builder.calibration import calibrate
from cache_builder.console.progress import BuildProgress
from cache_builder.format.errors import ConfigError, DataError
from cache_builder.format.manifest import Manifest
from cache_builder.format.reader import open_cache
from cache_builder.format.store import delete_object, open_store
from cache_builder.format.writer import CacheWriter
from cache_builder.interchange.importing import import_and_measure, run_import
from cache_builder.interchange.settings import ExportSettings, ImportSettings
from cache_builder.views import recipe_from
from tests.cache_builder.interchange.dumps import softmax, write_fkd, write_tinyvit
from tests.cache_builder.models import small
from tests.caches import synthetic_logits

CLASSES = 40
LOGITS = synthetic_logits(3, 80, CLASSES)
IDS = [f"n{row % 5:02d}/img_{row:03d}" for row in range(80)]


def imported(tmp_path: Path, source: Path, form: str, **changes: object) -> Path:
    out = tmp_path / "out.zarr"
    settings = ImportSettings.model_validate({"source": source, "form": form, "out": str(out)} | changes)
    with BuildProgress(Console(file=io.StringIO())) as progress:
        import_and_measure(settings, progress)
    return out


def decoded(path: Path) -> np.ndarray:
    cache = open_cache(path)
    assert not list(cache.damaged_shards())
    return np.stack([cache.decode(cache.read_page(view)) for view in range(cache.manifest.views.count)])


def saved(tmp_path: Path, array: np.ndarray = LOGITS) -> Path:
    np.save(tmp_path / "logits.npy", array)
    return tmp_path / "logits.npy"


def lacks(path: Path) -> str:
    return open_cache(path).manifest.environment["imported.lacks"]


def even(logits: np.ndarray, top_k: int) -> np.ndarray:
    """What the dumps know of softmax(logits)."""
    p = softmax(logits)
    order = np.argsort(-p, axis=-1)
    known = np.zeros(p.shape, np.bool_)
    np.put_along_axis(known, order[..., :top_k], True, axis=-1)
    rest = 1 - np.where(known, p, 0).sum(axis=-1, keepdims=True)
    return np.where(known, p, rest / (p.shape[-1] - top_k))


class TestDense:
    def test_npy(self, tmp_path: Path) -> None:
        path = imported(tmp_path, saved(tmp_path), "dense")
        error = np.sqrt(np.square(decoded(path) - LOGITS).mean())
        assert error < 0.1 * LOGITS.std()
        np.testing.assert_array_equal(decoded(path).argmax(axis=2), LOGITS.argmax(axis=2))
        assert list(open_cache(path).ids[:3]) == ["0", "1", "2"]
        assert "views that can be drawn again: nobody said how they were drawn" in lacks(path)
        with pytest.raises(ConfigError, match="were drawn by another program"):
            recipe_from(open_cache(path).manifest.views.recipe)

    def test_few_classes_are_exact(self, tmp_path: Path) -> None:
        few = synthetic_logits(1, 50, 10)[0]
        path = imported(tmp_path, saved(tmp_path, few), "dense")
        assert np.abs(decoded(path)[0] - few).max() < np.ptp(few, axis=1).max() / 500

    @pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
    def test_tensors(self, tmp_path: Path, kind: torch.dtype) -> None:
        torch.save({"logits": torch.from_numpy(LOGITS[0]).to(kind)}, tmp_path / "l.pt")
        path = imported(tmp_path, tmp_path / "l.pt", "dense")
        assert np.sqrt(np.square(decoded(path)[0] - LOGITS[0]).mean()) < 0.1 * LOGITS.std()

    def test_ids_and_labels(self, tmp_path: Path) -> None:
        (tmp_path / "ids.txt").write_text("\n".join(IDS) + "\n")
        np.save(tmp_path / "labels.npy", np.arange(80) % 7)
        path = imported(
            tmp_path, saved(tmp_path), "dense", ids=tmp_path / "ids.txt", labels=tmp_path / "labels.npy"
        )
        assert list(open_cache(path).ids) == IDS
        assert open_cache(path).labels.tolist() == [row % 7 for row in range(80)]
        (tmp_path / "ids.txt").write_text("\n".join(IDS[:-1]))
        with pytest.raises(DataError, match="has 79 lines, the dump 80 rows"):
            imported(tmp_path / "b", saved(tmp_path), "dense", ids=tmp_path / "ids.txt")

    def test_probabilities(self, tmp_path: Path) -> None:
        source = saved(tmp_path, softmax(LOGITS).astype(np.float32))
        with pytest.raises(ConfigError, match="looks like probabilities"):
            imported(tmp_path, source, "dense")
        path = imported(tmp_path, source, "dense", values="probs")
        assert np.abs(softmax(decoded(path)) - softmax(LOGITS)).sum(axis=2).mean() < 0.05
        assert "the logits' additive constant" in lacks(path)
        (tmp_path / "x").mkdir()
        with pytest.raises(ConfigError, match="holds no probabilities"):
            imported(tmp_path / "x", saved(tmp_path / "x"), "dense", values="probs")

    def test_what_is_no_dump(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"neither a \.npy array nor a plain tensor file"):
            imported(tmp_path, tmp_path / "a.npy", "dense")
        for array in (np.zeros((3, 4), np.int64), np.zeros(5, np.float32)):
            with pytest.raises(DataError, match="expected floats"):
                imported(tmp_path, saved(tmp_path, array), "dense")
        bad = LOGITS.copy()
        bad[1, 70, 3] = np.nan
        with pytest.raises(DataError, match="row 70 has values that are not finite"):
            imported(tmp_path, saved(tmp_path, bad), "dense")
        assert not (tmp_path / "out.zarr").exists()
        assert [path.name for path in tmp_path.iterdir() if "creating" in path.name] == []


class TestReplay:
    """Only what is known is replayed, and then rightly."""

    def plain(self, photos: Path, crop: str = "") -> np.ndarray:
        """The logits of a teacher that saw one centre crop of each photograph."""
        from cache_builder.build.forward import TeacherForward
        from cache_builder.datasets import open_source
        from cache_builder.teachers.preprocessing import IMAGENET_MEAN, IMAGENET_STD
        from cache_builder.views import parse_recipe
        from cache_builder.views.apply import render

        source, recipe = open_source(f"imagefolder:{photos}"), parse_recipe(f"plain{crop}")
        images = [render(source.read(row).value, recipe, 0, 0, row, 16, "bilinear") for row in range(80)]
        forward = TeacherForward(small().eval(), IMAGENET_MEAN, IMAGENET_STD, torch.device("cpu"), "fp32")
        logits: np.ndarray = forward.logits(torch.stack(images)).numpy()
        return logits

    def test_plain_is_what_a_build_gives(self, photos: Path, tmp_path: Path) -> None:
        logits = self.plain(photos)
        path = imported(
            tmp_path, saved(tmp_path, logits), "dense", data=f"imagefolder:{photos}", recipe="plain",
            input_size=16, teacher="small",
        )  # fmt: skip
        manifest = open_cache(path).manifest
        assert manifest.views.recipe.name == "plain"
        assert len(manifest.probe.pairs) == 4
        assert (open_cache(path).digests != 0).all()
        from tests.cache_builder.verify.test_run import checked, failed

        report = checked(path, data=f"imagefolder:{photos}", with_teacher=False)
        assert failed(report) == {}

    def test_a_random_recipe_needs_the_seed(self, photos: Path, tmp_path: Path) -> None:
        common: dict[str, object] = {"data": f"imagefolder:{photos}", "recipe": "rrc-flip", "input_size": 16}
        with pytest.raises(ConfigError, match="only if kdcache itself drew them"):
            imported(tmp_path, saved(tmp_path), "dense", **common)
        path = imported(tmp_path, saved(tmp_path), "dense", seed=9, **common)
        assert open_cache(path).manifest.views.seed == 9

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"recipe": "plain", "input_size": 16}, "draws 1 view, the dump has 3"),
            ({"recipe": "rrc-flip", "seed": 1}, "--data and --input-size must be known"),
            ({"seed": 1}, "add the --recipe"),
        ],
        ids=str,
    )
    def test_refusals(self, tmp_path: Path, changes: dict[str, object], said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            imported(tmp_path, saved(tmp_path), "dense", **changes)

    def test_own_views_have_no_recipe(self, tmp_path: Path) -> None:
        write_tinyvit(tmp_path / "d", LOGITS, IDS, 10)
        with pytest.raises(ConfigError, match="no recipe of kdcache draws them: leave --recipe out"):
            imported(tmp_path, tmp_path / "d", "tinyvit", classes=CLASSES, recipe="rrc-flip", seed=1)

    def test_other_samples(self, photos: Path, tmp_path: Path) -> None:
        (tmp_path / "ids.txt").write_text("\n".join(IDS))
        with pytest.raises(DataError, match=r"80 of 80 samples of .* are not in imagefolder"):
            imported(
                tmp_path, saved(tmp_path), "dense", ids=tmp_path / "ids.txt", data=f"imagefolder:{photos}"
            )
        with pytest.raises(DataError, match="which row is which sample"):
            imported(tmp_path, saved(tmp_path, LOGITS[:, :70]), "dense", data=f"imagefolder:{photos}")
        np.save(tmp_path / "labels.npy", np.zeros(80, np.int64))
        with pytest.raises(DataError, match=r"78 labels .* are not those of"):
            imported(
                tmp_path, saved(tmp_path), "dense", labels=tmp_path / "labels.npy",
                data=f"imagefolder:{photos}",
            )  # fmt: skip


class TestTinyViT:
    def test_probabilities_at_temperature_1(self, tmp_path: Path) -> None:
        write_tinyvit(tmp_path / "d", LOGITS, IDS, 10)
        path = imported(tmp_path, tmp_path / "d", "tinyvit", classes=CLASSES)
        cache = open_cache(path)
        assert sorted(cache.ids) == sorted(IDS)
        rows = [IDS.index(sample_id) for sample_id in cache.ids]
        found, wanted = softmax(decoded(path)), even(LOGITS[:, rows], 10)
        # Half precision in the dump, eight bits between the largest and the tenth logit in the record.
        assert 0.5 * np.abs(found - wanted).sum(axis=2).max() < 0.02
        assert 0.5 * np.abs(found - wanted).sum(axis=2).mean() < 0.005
        np.testing.assert_array_equal(decoded(path).argmax(axis=2), LOGITS[:, rows].argmax(axis=2))
        assert cache.manifest.codec.top_k == 10
        assert cache.record_bytes < 32
        assert "the shape of the tail" in lacks(path)
        assert "TinyViT's own augmentations" in lacks(path)

    def test_one_epoch_of_it(self, tmp_path: Path) -> None:
        write_tinyvit(tmp_path / "d", LOGITS, IDS, 10, ranks=3)
        path = imported(tmp_path, tmp_path / "d" / "logits_top10_epoch1", "tinyvit", classes=CLASSES)
        assert open_cache(path).manifest.views.count == 1

    def test_damage(self, tmp_path: Path) -> None:
        write_tinyvit(tmp_path / "d", LOGITS, IDS, 10)
        epoch = tmp_path / "d" / "logits_top10_epoch2"
        with pytest.raises(ConfigError, match="add --classes"):
            imported(tmp_path, tmp_path / "d", "tinyvit")
        with pytest.raises(DataError, match=r"class ids from 0 to .*, expected 0 to 9"):
            imported(tmp_path, tmp_path / "d", "tinyvit", classes=10)
        values = epoch / "rank1-values.bin"
        whole = values.read_bytes()
        values.write_bytes(whole[:-3])
        with pytest.raises(
            DataError, match=r"rank1-values\.bin has 1757 bytes, expected 40 records of 44: torn"
        ):
            imported(tmp_path, tmp_path / "d", "tinyvit", classes=CLASSES)
        values.unlink()
        (epoch / "rank1-keys.txt").unlink()
        with pytest.raises(DataError, match="other keys than the first epoch: 40 missing"):
            imported(tmp_path, tmp_path / "d", "tinyvit", classes=CLASSES)
        with pytest.raises(DataError, match="holds no folder named logits_topK_epochE"):
            imported(tmp_path, tmp_path / "none", "tinyvit", classes=CLASSES)


class TestFKD:
    @pytest.mark.parametrize("top_k", [5, None])
    def test_probabilities_at_temperature_1(self, tmp_path: Path, top_k: int | None) -> None:
        write_fkd(tmp_path / "d" / "train", LOGITS, IDS, top_k)
        classes = None if top_k is None else CLASSES
        path = imported(tmp_path, tmp_path / "d", "fkd", classes=classes)
        cache = open_cache(path)
        assert list(cache.ids) == sorted(IDS)
        rows = [IDS.index(sample_id) for sample_id in cache.ids]
        wanted = softmax(LOGITS[:, rows]) if top_k is None else even(LOGITS[:, rows], top_k)
        distance = 0.5 * np.abs(softmax(decoded(path)) - wanted).sum(axis=2)
        assert distance.mean() < 0.02
        assert "FKD stored crops and flips of its own" in lacks(path)
        assert ("the shape of the tail" in lacks(path)) == (top_k is not None)

    def test_ids_of_the_data_set(self, photos: Path, tmp_path: Path) -> None:
        names = sorted(path.relative_to(photos).with_suffix("").as_posix() for path in photos.rglob("*.jpg"))
        write_fkd(tmp_path / "d" / "train", LOGITS, names, 5)
        path = imported(tmp_path, tmp_path / "d", "fkd", classes=CLASSES, data=f"imagefolder:{photos}")
        assert list(open_cache(path).ids) == [f"{name}.jpg" for name in names]
        assert open_cache(path).labels.tolist() == [row // 2 for row in range(80)]
        assert (open_cache(path).digests != 0).all()

    def test_damage(self, tmp_path: Path) -> None:
        write_fkd(tmp_path / "d", LOGITS, IDS, 5)
        with pytest.raises(ConfigError, match="add --classes"):
            imported(tmp_path, tmp_path / "d", "fkd")
        first = sorted((tmp_path / "d").rglob("*.tar"))[7]
        whole = first.read_bytes()
        first.write_bytes(whole[:200])
        with pytest.raises(DataError, match=f"{first.name} is not FKD's .* or torn"):
            imported(tmp_path, tmp_path / "d", "fkd", classes=CLASSES)
        torch.save([0, 0, torch.zeros(2, 2, 5)], first)
        with pytest.raises(DataError, match="another number of crops"):
            imported(tmp_path, tmp_path / "d", "fkd", classes=CLASSES)
        state = torch.load(sorted((tmp_path / "d").rglob("*.tar"))[0], weights_only=False)
        for path in (tmp_path / "d").rglob("*.tar"):
            torch.save([state[0], state[1], state[2].half()], path)
        with pytest.raises(DataError, match="exact only up to 2048"):
            imported(tmp_path, tmp_path / "d", "fkd", classes=10_000)

    def test_code_in_a_file_is_not_run(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return Path.touch, (tmp_path / "harm",)  # type: ignore[return-value]

        (tmp_path / "d").mkdir()
        torch.save([Harmful(), 0, torch.zeros(2, 2, 5)], tmp_path / "d" / "a.tar")
        with pytest.raises(DataError, match="is not FKD's"):
            imported(tmp_path, tmp_path / "d", "fkd", classes=CLASSES)
        assert not (tmp_path / "harm").exists()


class TestParquet:
    def table(self, tmp_path: Path, kind: str = "probs", **columns: object) -> Path:
        p = softmax(LOGITS).reshape(-1, CLASSES)
        index = np.argsort(-p, axis=1)[:, :6]
        values = np.take_along_axis(p, index, axis=1)
        lse = np.log(np.exp(LOGITS).sum(axis=2)).reshape(-1)
        if kind == "logprobs":
            values = np.log(values)
        if kind == "logits":
            values = np.take_along_axis(LOGITS.reshape(-1, CLASSES), index, axis=1)
            columns["lse"] = lse
        frame: dict[str, object] = {
            "sample_id": IDS * 3,
            "view": np.repeat(np.arange(3), 80),
            "label": np.tile(np.arange(80) % 9, 3),
            "indices": index.tolist(),
            kind: values.tolist(),
        }
        frame = {name: value for name, value in (frame | columns).items() if value is not None}
        pq.write_table(pa.table(frame), tmp_path / "t.parquet")
        return tmp_path / "t.parquet"

    @pytest.mark.parametrize("kind", ["probs", "logprobs", "logits"])
    def test_probabilities_at_temperature_1(self, tmp_path: Path, kind: str) -> None:
        path = imported(tmp_path, self.table(tmp_path, kind), "topk-parquet", classes=CLASSES)
        distance = 0.5 * np.abs(softmax(decoded(path)) - even(LOGITS, 6)).sum(axis=2)
        assert distance.max() < 0.02
        assert open_cache(path).labels.tolist() == [row % 9 for row in range(80)]

    def test_what_export_writes(self, tmp_path: Path) -> None:
        from cache_builder.interchange.export import export
        from tests.caches import write_synthetic_cache

        write_synthetic_cache(tmp_path / "c.zarr", LOGITS)
        wanted = ExportSettings(
            cache=str(tmp_path / "c.zarr"), out=str(tmp_path / "c.parquet"), form="parquet"
        )
        with BuildProgress(Console(file=io.StringIO())) as progress:
            export(wanted, progress)
        path = imported(tmp_path, tmp_path / "c.parquet", "topk-parquet", classes=CLASSES)
        original = open_cache(tmp_path / "c.zarr")
        assert list(open_cache(path).ids) == list(original.ids)
        assert (0.5 * np.abs(softmax(decoded(path)) - even(LOGITS, 5)).sum(axis=2)).max() < 0.02

    def test_refusals(self, tmp_path: Path) -> None:
        def refused(said: str, **columns: object) -> None:
            with pytest.raises((DataError, ConfigError), match=said):
                imported(tmp_path, self.table(tmp_path, **columns), "topk-parquet", classes=CLASSES)  # type: ignore[arg-type]

        refused("do not say what mass lies outside", probs=None, logits=[[1.0] * 6] * 240)
        refused("occurs more than once in a view", view=np.zeros(240, np.int64))
        refused("pairs have no line", view=np.repeat([0, 1, 3], 80))
        refused("must hold lists of one length", indices=[[1]] * 120 + [[1, 2]] * 120)
        refused("differ in length", indices=[[1]] * 240)
        refused("names a class twice", indices=[[1, 2, 3, 4, 5, 1]] * 240)
        refused("no probabilities of the top K", probs=[[0.5] * 6] * 240)
        refused("has different labels", label=np.arange(240) % 9)
        refused("has no column of class ids", indices=None)


def test_where_something_is_already(tmp_path: Path) -> None:
    imported(tmp_path, saved(tmp_path), "dense")
    with pytest.raises(ConfigError, match="exists already"):
        imported(tmp_path, saved(tmp_path), "dense")


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_import(ImportSettings(source=saved(tmp_path), form="dense", out=str(tmp_path / "o.zarr")))
    printed = capsys.readouterr().out
    assert "record " in printed
    assert "lost: " in printed
    assert "80 samples x 3 views, 40 classes; cache_id" in printed
    assert "lacks the teacher's name" in printed


def test_a_remote_cache(tmp_path: Path) -> None:
    settings = ImportSettings(source=saved(tmp_path), form="dense", out="memory://import/o.zarr")
    with BuildProgress(Console(file=io.StringIO())) as progress:
        manifest: Manifest = import_and_measure(settings, progress).manifest
    assert open_cache("memory://import/o.zarr").manifest.cache_id == manifest.cache_id


def test_a_remote_import_that_was_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = "memory://import-killed/o.zarr"
    settings = ImportSettings(source=saved(tmp_path), form="dense", out=out)
    seal = CacheWriter.finish

    def die(self: CacheWriter) -> Manifest:
        raise KeyboardInterrupt

    with BuildProgress(Console(file=io.StringIO())) as progress:
        monkeypatch.setattr(CacheWriter, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            import_and_measure(settings, progress)
        begun = open_cache(out, allow_partial=True)
        (tile, *_) = begun.tiles
        delete_object(open_store(out, read_only=False), tile.key)
        monkeypatch.setattr(CacheWriter, "finish", seal)
        with pytest.raises(ConfigError, match="another import or build began"):
            import_and_measure(settings.model_copy(update={"teacher": "other"}), progress)
        manifest = import_and_measure(settings, progress).manifest
        whole = import_and_measure(
            settings.model_copy(update={"out": str(tmp_path / "o.zarr")}), progress
        ).manifest
        assert manifest.cache_id == whole.cache_id == open_cache(out).manifest.cache_id
        with pytest.raises(ConfigError, match="exists already"):
            import_and_measure(settings, progress)


@pytest.mark.parametrize("mask", [-1e4, -1e9, -np.inf])
@pytest.mark.parametrize("classes", [5, 60])
def test_masked_classes_cost_nothing(tmp_path: Path, mask: float, classes: int) -> None:
    live = np.random.default_rng(0).normal(size=(300, classes)).astype(np.float32) * 1.5
    live[:, 3] = mask
    np.save(tmp_path / "l.npy", live)
    import_dump_of(tmp_path)
    cache = open_cache(tmp_path / "o.zarr")
    decoded = cache.decode(cache.read_page(0))
    assert (decoded[:, 3] == -1e4).all()
    others = np.arange(classes) != 3
    assert np.square(decoded - live)[:, others].mean() < 0.1 * live[:, others].var()
    assert (decoded.argmax(axis=1) == live.argmax(axis=1)).mean() > 0.98


def test_masks_that_calibration_did_not_see_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    live[7, 2] = -1e9
    np.save(tmp_path / "l.npy", live)
    monkeypatch.setattr(calibrate, "groups", lambda *_: [(row, range(1)) for row in range(5)])
    with pytest.raises(DataError, match="row 7 of view 0 masks classes"):
        import_dump_of(tmp_path)


def import_dump_of(folder: Path) -> None:
    run_import(ImportSettings(source=folder / "l.npy", form="dense", out=str(folder / "o.zarr")))
