"""The process that renders pictures, with real pictures and torch."""

import io
from collections.abc import Iterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
from PIL import Image

from cache_builder.datasets import LimitedSource, open_source
from cache_builder.format import ConfigError
from cache_builder.format.reader import open_cache
from cache_builder.views.replay import Replay
from logit_server.run import serving
from logit_server.served_caches import Catalog
from logit_server.settings import Settings
from logit_server.shelf import open_catalog
from logit_server.web.pictures import data_sets
from tests.trainer.replay_caches import write_replay_cache

SAMPLES, SIDE = 12, 16


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "digits.zarr"
    source = LimitedSource(open_source("digits:train"), SAMPLES)
    write_replay_cache(path, source, image_size=SIDE, name="digits", invalid_rows=(3,))
    return path


@pytest.fixture(scope="module")
def client(digits: Path) -> Iterator[httpx2.Client]:
    """Of a server of the cache with its pictures, and once more with a folder that has none."""
    empty = digits.parent / "empty"
    empty.mkdir()
    caches, data = (str(digits), f"lost={digits}"), ("digits:train", f"lost=imagefolder:{empty}")
    with (
        serving(Settings(caches=caches, data=data, port=0)) as base,
        httpx2.Client(base_url=f"{base}/caches", timeout=200) as opened,
    ):
        yield opened


@pytest.fixture
def catalog(digits: Path) -> Catalog:
    return open_catalog(Settings(caches=(str(digits),)))


def test_a_picture_is_the_view_that_the_teacher_saw(client: httpx2.Client, digits: Path) -> None:
    source = open_source("digits:train")
    replay = Replay.of(open_cache(digits).manifest)
    for row, view in ((0, 0), (0, 1), (11, 1)):
        response = client.get("/digits/picture", params={"row": row, "view": view})
        assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
        (seen,) = replay.batch([(row, view)], lambda row: source.read(row).image)
        assert seen.image is not None
        found = np.asarray(Image.open(io.BytesIO(response.content)))
        np.testing.assert_array_equal(found, seen.image.permute(1, 2, 0).numpy())


def test_a_picture_that_is_known_is_not_sent_again(client: httpx2.Client) -> None:
    url = "/digits/picture?row=1&view=0"
    tag = client.get(url).headers["etag"]
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 304


def test_what_cannot_be_shown_is_said_and_the_next_one_is(client: httpx2.Client, digits: Path) -> None:
    broken = client.get("/digits/picture?row=3&view=0")
    assert broken.status_code == 503
    assert "log" in broken.json()["detail"]
    assert client.get("/digits/picture?row=4&view=0").status_code == 200
    assert client.get("/digits/picture?row=99&view=0").status_code == 422
    assert client.get("/digits/picture?row=0&view=9").status_code == 422


def test_the_page_of_a_sample_shows_pictures(client: httpx2.Client) -> None:
    body = client.get("/digits/sample?row=0", headers={"Accept": "text/html"}).text
    assert "/caches/digits/picture?row=0&amp;view=1" in body


def test_errors_tell_the_log_more_than_the_client(
    client: httpx2.Client, digits: Path, caplog: pytest.LogCaptureFixture
) -> None:
    response = client.get("/lost/picture?row=0&view=0")
    assert response.status_code == 503
    assert str(digits.parent) not in response.text
    assert "holds no images" in caplog.text


def test_a_server_without_data_says_what_to_do(digits: Path) -> None:
    with serving(Settings(caches=(str(digits),), port=0)) as base:
        response = httpx2.get(f"{base}/caches/digits/picture?row=0&view=0")
    assert response.status_code == 422
    assert "--data" in response.json()["detail"]


def test_data_is_of_every_cache_or_of_one(catalog: Catalog) -> None:
    assert data_sets(("digits:train",), catalog) == {"digits": "digits:train"}
    assert data_sets(("digits=imagefolder:/a=b",), catalog) == {"digits": "imagefolder:/a=b"}
    assert data_sets((), catalog) == {}
    with pytest.raises(ConfigError, match="no cache 'other' is served, there is 'digits'"):
        data_sets(("other=digits",), catalog)
