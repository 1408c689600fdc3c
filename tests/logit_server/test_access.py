import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from cache_builder.format import Cache, ConfigError, ServerError
from cache_builder.format.wire import ROWS
from logit_server.access import scope_of
from logit_server.run import serving
from logit_server.settings import Settings
from logit_server.tokens import Scope, hash_of
from tests.logit_server.processes import refused
from trainer.teacher.client import TeacherCache

ROW = b"\0" * 4
PATHS = [
    "",
    "/ids",
    "/samples/nope",
    "/records",
    "/views/0/records",
    "/arrays/codec/logits/mean",
    "/zarr/zarr.json",
]


def line(name: str, **more: object) -> str:
    """The line of a token that is called as it reads."""
    return (
        f"{name} = {{ hash = {hash_of(name.encode())!r}"
        + "".join(f", {key} = {value}" for key, value in more.items())
        + " }\n"
    )


def as_(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text(
        line("everything", scopes=["read", "metrics", "admin"])
        + line("reader")
        + line("ann", caches=["synthetic"])
        + line("nobody", caches=["elsewhere"])
        + line("watcher", scopes=["metrics"])
    )
    return path


@pytest.fixture(scope="module")
def guarded(cache_path: Path, odd_path: Path, tokens: Path) -> Iterator[str]:
    """A server of both caches that knows these tokens and one of the environment."""
    caches = (str(cache_path), str(odd_path))
    with serving(Settings(caches=caches, port=0, tokens=tokens, token="of-the-environment")) as base:
        yield base


def names(base: str, token: str) -> list[str]:
    return [cache["name"] for cache in httpx2.get(f"{base}/v1/caches", headers=as_(token)).json()["caches"]]


def test_each_token_sees_its_caches_in_the_list(guarded: str, cache: Cache) -> None:
    assert names(guarded, "of-the-environment") == names(guarded, "reader") == ["synthetic", "odd"]
    assert names(guarded, "ann") == ["synthetic"]
    assert names(guarded, "nobody") == []


SAME = {"X-Request-Id": "the-same"}
"""The id of a request stands in its error."""


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_hidden_cache_is_answered_as_an_unknown_one(
    path: str, method: str, guarded: str, odd_path: Path
) -> None:
    with httpx2.Client(base_url=guarded, headers=as_("ann") | SAME | {"Content-Type": ROWS}) as client:
        odd = httpx2.get(f"{guarded}/v1/caches/odd", headers=as_("reader")).headers["x-kdcache-id"]
        for hidden, unknown in [("odd", "xyz"), (odd, "0" * len(odd))]:
            answers = [
                client.request(method, f"/v1/caches/{name}{path}", content=ROW if method == "POST" else b"")
                for name in (hidden, unknown)
            ]
            assert answers[0].status_code == answers[1].status_code
            assert answers[0].text.replace(hidden, "NAME") == answers[1].text.replace(unknown, "NAME")
            assert "x-kdcache-id" not in answers[0].headers
            assert "'odd'" not in answers[1].text


def test_a_token_of_one_cache_is_served_by_name_and_by_id(guarded: str, cache: Cache) -> None:
    for name in ("synthetic", cache.manifest.completed_id):
        url = f"{guarded}/v1/caches/{name}/records"
        answer = httpx2.post(url, content=ROW, headers=as_("ann") | {"Content-Type": ROWS})
        assert answer.content == cache.read_page(0)[0].tobytes()
        assert answer.headers["x-kdcache-id"] == cache.manifest.cache_id


def test_without_a_token_nothing_tells_which_caches_there_are(guarded: str) -> None:
    for headers in ({}, as_("wrong"), as_("anna"), {"Authorization": "ann"}, as_("ann ann")):
        answers = [
            httpx2.get(f"{guarded}/v1/caches/{name}", headers=headers | SAME) for name in ("odd", "xyz")
        ]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].text == answers[1].text
        assert "x-kdcache-id" not in answers[0].headers
        for path in ("/healthz", "/readyz"):
            answer = httpx2.get(guarded + path, headers=headers)
            assert (answer.status_code, answer.json()["caches"]) == (200, [])
    assert httpx2.get(f"{guarded}/healthz", headers=as_("ann")).json()["caches"] == ["synthetic"]
    assert httpx2.get(f"{guarded}/healthz", headers=as_("watcher")).json()["caches"] == []


def test_a_token_of_another_scope_is_forbidden(guarded: str) -> None:
    answer = httpx2.get(f"{guarded}/v1/caches", headers=as_("watcher"))
    assert (answer.status_code, answer.json()["error"]) == (403, "ForbiddenError")
    assert "scope read" in answer.json()["detail"]
    for path in ("/metrics", "/v1/admin/reload"):
        assert httpx2.get(guarded + path, headers=as_("reader")).status_code == 403
        assert httpx2.get(guarded + path, headers=as_("everything")).status_code != 403
    assert httpx2.get(f"{guarded}/metrics", headers=as_("watcher")).status_code != 403


def test_who_sees_some_caches_alone_is_told_no_figures_of_the_whole_server(guarded: str) -> None:
    for token, status in (("reader", 200), ("of-the-environment", 200), ("ann", 403), ("nobody", 403)):
        headers = as_(token) | {"Accept": "text/html"}
        answer = httpx2.get(f"{guarded}/live.json", headers=headers)
        assert answer.status_code == status
        assert ("records_served" in answer.text) is (status == 200)
        overview = httpx2.get(f"{guarded}/", headers=headers)
        assert overview.status_code == 200
        assert ("Records served" in overview.text) is (status == 200)


@pytest.mark.parametrize(
    ("path", "scope"),
    [("/", Scope.READ), ("/v1/caches/metrics", Scope.READ), ("/metrics", Scope.METRICS),
     ("/metrics/", Scope.METRICS), ("/v1/admin/reload", Scope.ADMIN), ("/v1/admins", Scope.READ)],
)  # fmt: skip
def test_paths_have_scopes(path: str, scope: Scope) -> None:
    assert scope_of(path) is scope


def test_who_may_not_know_a_cache_is_not_told_what_ails_it(
    own_cache: Path, tokens: Path, tmp_path: Path
) -> None:
    settings = Settings(caches=(f"secret-name={own_cache}",), port=0, tokens=tokens)
    with serving(settings) as base:
        own_cache.rename(tmp_path / "away")
        answer = httpx2.get(f"{base}/readyz")
        assert answer.status_code == 503
        assert "secret-name" not in answer.text
        assert "secret-name" in httpx2.get(f"{base}/readyz", headers=as_("reader")).text


def test_a_trainer_sends_the_token_of_its_environment(guarded: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{guarded}/v1/caches/synthetic"
    monkeypatch.setenv("KDCACHE_TOKEN", "ann")
    with TeacherCache.open(url) as opened:
        assert opened.manifest.name == "synthetic"
    monkeypatch.setenv("KDCACHE_TOKEN", "nobody")
    with pytest.raises(ServerError, match="404"), TeacherCache.open(url):
        pass


def test_tokens_come_and_go_without_a_restart(cache_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(line("old"))
    with serving(Settings(caches=(str(cache_path),), port=0, tokens=file)) as base:
        assert names(base, "old") == ["synthetic"]
        file.write_text(line("new"))
        deadline = time.monotonic() + 30
        while (answer := httpx2.get(f"{base}/v1/caches", headers=as_("new"))).status_code != 200:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.1)
        assert httpx2.get(f"{base}/v1/caches", headers=as_("old")).status_code == 401


def test_a_server_whose_tokens_cannot_be_read_does_not_start(cache_path: Path, tmp_path: Path) -> None:
    ran = refused(cache_path, tokens=tmp_path / "nowhere.toml", workers=2)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "nowhere.toml" in ran.stderr
    with pytest.raises(ConfigError, match="cannot be read"):
        serving(Settings(caches=(str(cache_path),), port=0, tokens=tmp_path / "none")).__enter__()
