import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from cache_builder.format import IncompleteCacheError
from cache_builder.format.wire import ARROW, COUNTED, JSON, NDJSON, NPY, RECORDS, ROWS, WIDE_ROWS
from logit_server.app import create_app
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.logit_server.processes import ROOT

HERE = "http://localhost"


@pytest.fixture(scope="module")
def document(url: str) -> dict[str, Any]:
    """The OpenAPI document as clients get it."""
    found: dict[str, Any] = httpx2.get(f"{url}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def test_every_path_is_documented(document: dict[str, Any]) -> None:
    assert {(method, path) for method, path, _ in operations(document)} == {
        ("get", "/v1/caches"),
        ("get", "/v1/caches/{name}"),
        ("get", "/v1/caches/{name}/arrays/{path}"),
        ("get", "/v1/caches/{name}/ids"),
        ("get", "/v1/caches/{name}/zarr/{key}"),
        ("get", "/v1/caches/{name}/samples"),
        ("get", "/v1/caches/{name}/samples/{sample_id}"),
        ("post", "/v1/caches/{name}/records"),
        ("get", "/v1/caches/{name}/views/{view}/records"),
        ("get", "/healthz"),
        ("get", "/livez"),
        ("get", "/metrics"),
        ("get", "/readyz"),
    }


def test_every_operation_has_a_sentence_and_every_parameter_a_place(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        assert operation["description"]
        named = {
            parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"
        }
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (item for key, item in value.items() if key == "$ref")
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = set(references(document))
    assert found
    for reference in found:
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_bodies_and_answers_of_records_are_documented(document: dict[str, Any]) -> None:
    post = document["paths"]["/v1/caches/{name}/records"]["post"]
    assert set(post["requestBody"]["content"]) == {JSON, ROWS, WIDE_ROWS}
    kinds = post["requestBody"]["content"][JSON]["schema"]["anyOf"]
    assert [kind["required"] for kind in kinds] == [["ids"], ["rows"]]
    assert not any(kind["additionalProperties"] for kind in kinds)
    assert set(post["responses"]["200"]["content"]) == {JSON, NDJSON, ARROW, RECORDS, COUNTED}
    assert {"404", "406", "413", "415", "422", "500", "503"} <= set(post["responses"])


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/v1/caches/{name}/arrays/{path}", NPY),
        ("/v1/caches/{name}/ids", NDJSON),
        ("/v1/caches/{name}/views/{view}/records", RECORDS),
        ("/v1/caches/{name}/samples/{sample_id}", JSON),
        ("/v1/caches/{name}", JSON),
    ],
)
def test_answers_are_documented_with_their_type(path: str, media_type: str, document: dict[str, Any]) -> None:
    assert media_type in document["paths"][path]["get"]["responses"]["200"]["content"]


def test_errors_are_documented_as_they_are(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        for status, response in operation["responses"].items():
            if status != "200":
                schema = response["content"][JSON]["schema"]
                assert schema["$ref"].endswith("/ErrorDocument")


def test_people_can_look_at_the_document(url: str) -> None:
    page = httpx2.get(f"{url}/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text


def test_an_application_refuses_what_the_server_refuses(tmp_path: Path) -> None:
    write_synthetic_cache(tmp_path / "half.zarr", synthetic_logits(2, 64, 10), commit=1)
    with pytest.raises(IncompleteCacheError):
        create_app(Settings(caches=(str(tmp_path / "half.zarr"),)))


def test_an_application_cleans_up_after_itself(cache_path: Path, tmp_path: Path) -> None:
    app = create_app(Settings(caches=(str(cache_path),), page_dir=tmp_path))
    with TestClient(app, HERE) as client:
        assert client.get("/v1/caches/synthetic/views/0/records").status_code == 200
        assert len(list(tmp_path.rglob("*.page"))) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_application_that_was_not_started_says_so(cache_path: Path) -> None:
    client = TestClient(create_app(Settings(caches=(str(cache_path),))), HERE)
    response = client.get("/v1/caches/synthetic/views/0/records")
    assert (response.status_code, response.json()["error"]) == (500, "InternalError")


IMPORTS = """
import sys
import logit_server.__main__, logit_server.run, logit_server.routes.records
heavy = {"torch", "torchvision", "trainer", "sklearn", "accelerate"}
builder = {name for name in sys.modules if name.startswith("cache_builder.")}
print(sorted(heavy & set(sys.modules)))
print(sorted(name for name in builder if not name.startswith("cache_builder.format")))
"""


SERVER_CONSOLE = ("environment", "fidelity", "limits", "one_by_one", "options")


def test_the_server_loads_no_torch_and_of_the_builder_only_format_and_console() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True, cwd=ROOT
    )
    of_console = ["cache_builder.console", *(f"cache_builder.console.{name}" for name in SERVER_CONSOLE)]
    assert ran.stdout.splitlines() == ["[]", str(of_console)]
