import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from cache_builder.format import Cache, Manifest, open_cache
from cache_builder.format.manifest import differing_settings, parse_manifest
from logit_server.public_manifest import place_name, public_manifest, without_folders
from logit_server.run import serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from trainer.teacher.client import TeacherCache


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("imagefolder:/home/ann/photos", "imagefolder:photos"),
        ("imagefolder:/home/ann/photos/", "imagefolder:photos"),
        ("imagefolder:/home/a=b, c:d/my photos", "imagefolder:my photos"),
        ("imagefolder:../ann/photos", "imagefolder:photos"),
        ("imagefolder:~ann/photos", "imagefolder:photos"),
        ("imagefolder:C:\\Users\\ann\\photos", "imagefolder:C:photos"),
        ("webdataset:/data/ann/x-{000..010}.tar", "webdataset:x-{000..010}.tar"),
        ("webdataset:s3://ann-bucket/private/x.tar", "webdataset:s3:x.tar"),
        ("hf:/home/ann/set:train", "hf:set:train"),
        ("csv:/home/ann/a.csv?root=/home/ann/files&label=y", "csv:a.csv?root=files&label=y"),
        ("torchvision:Flowers102:/home/ann/f:train", "torchvision:Flowers102:f:train"),
        ("ann.data:Photos:/home/ann/photos", "ann.data:Photos:photos"),
        ("digits:train", "digits:train"),
        ("imported:npz", "imported:npz"),
        ("/home/ann/best.pth", "best.pth"),
        ("runs/ann/best.pth", "best.pth"),
        ("default", "default"),
        ("/", ""),
    ],
)
def test_a_place_is_shown_by_its_name(spec: str, shown: str) -> None:
    assert place_name(spec) == shown
    assert place_name(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("labels from /home/ann/my files/map.csv", "labels from map.csv"),
        ('matched by "/home/ann/map.csv", 3 of 4', 'matched by "map.csv", 3 of 4'),
        ("read (~/x/y.npz)", "read (y.npz)"),
        ("C:\\Users\\ann\\x.npz", "x.npz"),
        ("resized to 256, 1/255, 3/4 of them, N/A", "resized to 256, 1/255, 3/4 of them, N/A"),
        ("timm:hf-hub:org/model", "timm:hf-hub:org/model"),
        ("rrc-flip:ratio=3/4", "rrc-flip:ratio=3/4"),
        ("augment:file=/home/ann/recipe.json", "augment:file=recipe.json"),
    ],
)
def test_sentences_lose_absolute_paths_alone(text: str, shown: str) -> None:
    assert without_folders(text) == shown


SECRET = "/home/ann/secret"
REQUESTED = {
    "teacher": ["vit_l", "timm:org/model"],
    "weights": [f"{SECRET}/a.pth", "ann/b.pth"],
    "data": f"imagefolder:{SECRET}/photos",
    "recipe": f"augment:file={SECRET}/r.json",
    "class_map": f"{SECRET}/map.csv",
}


def telling_manifest(manifest: Manifest) -> Manifest:
    """The manifest, telling wherever it can where its builder kept things."""
    body = manifest.model_dump(mode="json")
    body["data"]["spec"] = REQUESTED["data"]
    body["teacher"]["weights"] = f"{SECRET}/a.pth + {SECRET}/b.pth"
    body["requested"] |= REQUESTED
    body["environment"] |= {"imported.source": f"{SECRET}/dump.npz", "labels": f"3 by {SECRET}/map.csv"}
    return Manifest.model_validate(body)


@pytest.fixture
def telling(tmp_path: Path) -> Path:
    """A finished cache with such a manifest."""
    path = tmp_path / "store-of-ann" / "telling.zarr"
    path.parent.mkdir()
    write_synthetic_cache(path, synthetic_logits(views=2, rows=40, classes=10), change=telling_manifest)
    return path


def test_no_answer_names_a_folder(telling: Path, tmp_path: Path) -> None:
    pages = tmp_path / "pages-of-ann"
    with serving(Settings(caches=(str(telling),), port=0, page_dir=pages)) as base:
        paths = ["", "/ids", "/samples/nope", "/arrays/nope", "/views/7/records", "/nothing"]
        shown = [httpx2.get(f"{base}/v1/caches/synthetic{path}").text for path in paths]
        shown += [
            httpx2.get(base + path).text for path in ("/v1/caches", "/healthz", "/readyz", "/openapi.json")
        ]
        (tmp_path / "store-of-ann").rename(tmp_path / "away-of-ann")
        shown += [
            httpx2.get(base + path).text for path in ("/readyz", "/v1/caches/synthetic/views/0/records")
        ]
    for text in shown:
        assert "ann/" not in text
        assert "-of-ann" not in text
        assert str(tmp_path) not in text
    manifest = json.loads(shown[0])
    assert manifest["data"]["spec"] == "imagefolder:photos"
    assert manifest["teacher"]["weights"] == "a.pth + b.pth"
    assert (
        manifest["requested"] | {"weights": ["a.pth", "b.pth"], "class_map": "map.csv"}
        == manifest["requested"]
    )
    assert manifest["requested"]["teacher"] == REQUESTED["teacher"]
    assert manifest["environment"]["labels"] == "3 by map.csv"


def test_a_client_checks_what_it_checked_before(telling: Path) -> None:
    stored = open_cache(telling).manifest
    with (
        serving(Settings(caches=(str(telling),), port=0)) as base,
        TeacherCache.open(f"{base}/v1/caches/synthetic") as remote,
        TeacherCache.open(str(telling)) as local,
    ):
        assert remote.manifest.cache_id == stored.cache_id
        assert remote.manifest.digests == stored.digests
        for section in ("input", "outputs", "positions", "views", "tiling", "probe", "calibration"):
            assert getattr(remote.manifest, section) == getattr(stored, section)
        assert {line.partition(":")[0] for line in differing_settings(stored, remote.manifest)} == {
            "data.spec", "teacher.weights",
        }  # fmt: skip
        rows = list(range(40))
        assert (remote.fetch(1, rows) == local.fetch(1, rows)).all()


def test_a_manifest_without_paths_is_given_as_it_is(cache: Cache) -> None:
    assert public_manifest(cache.body) == cache.body


def test_class_names_of_older_manifests_stay_whatever_they_look_like() -> None:
    names: dict[str, Any] = {
        "class_names": ["/a/b", "n/a"],
        "own_class_names": ["/x/y"],
        "spec": "csv:/a/b.csv",
    }
    shown = public_manifest({"format_version": 2, "data": names, "name": "n"})
    assert shown["data"] == names | {"spec": "csv:b.csv"}


def test_the_model_reads_what_is_shown(telling: Path) -> None:
    body = public_manifest(open_cache(telling).body)
    assert parse_manifest(body, "here").requested.class_map == "map.csv"
