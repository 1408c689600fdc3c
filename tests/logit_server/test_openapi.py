"""The OpenAPI document is valid, says of every operation what it needs and gives, and is true."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from cache_builder.format.wire import ARROW, COUNTED, JSON, NDJSON, PROBLEM, RECORDS, ROWS
from logit_server.admission import is_of_this_moment
from logit_server.run import serving
from logit_server.settings import Settings
from tests.format.test_golden import GOLDEN
from tests.logit_server.raw_client import served

NAMES = {"name": "synthetic", "path": "samples/label", "key": "zarr.json", "view": "0"}
OPERATION_IDS = {
    "list_caches", "read_manifest", "read_array", "read_ids", "read_sample_of_id", "read_sample",
    "post_records", "read_range", "read_object", "healthz", "livez", "readyz",
    "ready", "reload", "read_metrics",
}  # fmt: skip
"""Programs that are made from the document go by these: none of them ever changes."""


@pytest.fixture(scope="module")
def base(cache_path: Path) -> Iterator[str]:
    with served(cache_path, max_ids=50, max_json_records=20, max_target_bytes=2000) as url:
        yield url


@pytest.fixture(scope="module")
def document(base: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{base}/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def resolved(document: dict[str, Any], value: dict[str, Any]) -> dict[str, Any]:
    """What a value or a reference in its place says."""
    place: Any = document
    for part in value["$ref"].removeprefix("#/").split("/") if "$ref" in value else ():
        place = place[part]
    return place if "$ref" in value else value


def check(document: dict[str, Any], value: Any, schema: dict[str, Any]) -> None:
    """Raise where a value is not as its schema says."""
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    validate(document)


def test_operations_keep_their_names(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    assert set(ids) >= OPERATION_IDS


def test_every_error_is_a_problem_and_every_answer_has_its_headers(document: dict[str, Any]) -> None:
    for method, path, operation in operations(document):
        for status, given in operation["responses"].items():
            response = resolved(document, given)
            assert response["description"], (path, status)
            assert "X-Request-Id" in response["headers"], (path, status)
            for header in response["headers"].values():
                assert resolved(document, header)["schema"]
            if int(status) >= 400:
                assert list(response["content"]) == [PROBLEM]
                check(
                    document, response["content"][PROBLEM]["example"], response["content"][PROBLEM]["schema"]
                )
        assert ("304" in operation["responses"]) == (method == "get" and not is_of_this_moment(path))
    for status, header in {"401": "WWW-Authenticate", "416": "Content-Range", "503": "Retry-After"}.items():
        assert header in document["components"]["responses"][f"Error{status}"]["headers"]


def test_bodies_have_bounds_and_examples_that_fit(document: dict[str, Any], base: str) -> None:
    post = document["paths"]["/v1/caches/{name}/records"]["post"]
    for media_type, body in post["requestBody"]["content"].items():
        for example in body["examples"].values():
            check(document, example["value"], body["schema"])
            if media_type != JSON:
                response = httpx2.post(
                    f"{base}/v1/caches/synthetic/records",
                    content=example["value"].encode(),
                    headers={"Content-Type": media_type, "Accept": JSON},
                )
                assert [record["row"] for record in response.json()["records"]] == [0, 17]
    schema = post["requestBody"]["content"][JSON]["schema"]
    for wrong in ({}, {"rows": [0], "ids": ["a"]}, {"rows": [-1]}, {"rows": list(range(51))}, {"row": [0]}):
        assert not Draft202012Validator(schema).is_valid(wrong)
        assert httpx2.post(f"{base}/v1/caches/synthetic/records", json=wrong).status_code in (413, 422)


def test_who_may_ask_is_said_of_every_path(document: dict[str, Any], cache_path: Path) -> None:
    assert set(document["components"]["securitySchemes"]) == {"bearer", "basic"}
    assert all({} in operation["security"] for _, _, operation in operations(document))
    with serving(Settings.checked(caches=(str(cache_path),), port=0, token="secret")) as closed:
        headers = {"Authorization": "Bearer secret"}
        other = httpx2.get(f"{closed}/openapi.json", headers=headers).json()
        validate(other)
        for method, path, operation in operations(other):
            response = httpx2.request(method, closed + url_of(path, "x"))
            assert ({} in operation["security"]) == (response.status_code != 401), path


def url_of(path: str, sample_id: str) -> str:
    return path.format_map({**NAMES, "sample_id": sample_id})


SPOILT: list[tuple[str, dict[str, str]]] = [
    ("", {}),
    ("?id=nope", {}),
    ("?unknown=1", {}),
    ("?view=99", {}),
    ("?view=x", {}),
    ("?top=0", {}),
    ("?start=5&stop=3", {}),
    ("?start=3&stop=5&part=own", {}),
    (f"?a={'a' * 2000}", {}),
    ("", {"Accept": "image/png"}),
    ("", {"Accept": NDJSON}),
    ("?start=3&stop=8", {"Accept": ARROW}),
    ("", {"Range": "bytes=0-3"}),
    ("", {"Range": "bytes=99999999-"}),
    ("", {"If-None-Match": "*"}),
    ("", {"Host": "elsewhere.example"}),
    ("", {"Content-Type": "text/plain"}),
]
BODIES: list[tuple[dict[str, str], bytes]] = [
    ({"Content-Type": ROWS}, bytes(4)),
    ({"Content-Type": ROWS}, bytes(3)),
    ({"Content-Type": ROWS}, bytes(4 * 51)),
    ({"Content-Type": ROWS, "Accept": JSON}, bytes(4 * 21)),
    ({"Content-Type": JSON, "Accept": JSON}, b'{"rows": [0]}'),
    ({"Content-Type": JSON}, b'{"ids": ["nope"]}'),
    ({"Content-Type": JSON}, b"{"),
]


def test_every_answer_is_one_that_the_document_tells_of(document: dict[str, Any], base: str) -> None:
    seen: set[int] = set()
    sample_id = httpx2.get(f"{base}/v1/caches/synthetic/ids").text.partition("\n")[0]
    known = httpx2.Response(200, content=sample_id).json()["id"]
    with httpx2.Client(timeout=60) as client:
        for method, path, operation in operations(document):
            names = [
                NAMES,
                {**NAMES, "name": "nope"},
                {**NAMES, "path": "nope", "key": "c/nope", "view": "9"},
            ]
            for given in names:
                url = base + path.format_map({**given, "sample_id": known})
                asked = [(url + query, headers, b"") for query, headers in SPOILT]
                asked += [(url, headers, body) for headers, body in BODIES if method == "post"]
                if path.endswith("/samples"):
                    asked.append((f"{url}?id={known}", {}, b""))
                for target, headers, body in asked:
                    response = client.request(method, target, headers=headers, content=body)
                    check_documented(document, operation, response)
                    seen.add(response.status_code)
    assert seen >= {200, 206, 304, 404, 406, 413, 414, 415, 416, 421, 422}


def check_documented(document: dict[str, Any], operation: dict[str, Any], response: httpx2.Response) -> None:
    """Raise where an answer is none of those that the document has for its operation."""
    about = f"{response.request.method} {response.url}: {response.status_code}"
    assert str(response.status_code) in operation["responses"], about
    told = resolved(document, operation["responses"][str(response.status_code)])
    headers = {name.lower() for name in told["headers"]}
    of_ours = {"etag", "content-digest", "x-kdcache-id", "content-range", "accept-ranges", "retry-after",
               "www-authenticate", "allow", "cache-control", "vary"}  # fmt: skip
    assert set(response.headers) & of_ours - {"x-kdcache-id", "cache-control", "vary"} <= headers, about
    if response.content or response.status_code == 200:
        media_type = response.headers["content-type"].partition(";")[0]
        assert media_type in told["content"], about
        schema = told["content"][media_type].get("schema")
        if schema and media_type in (JSON, PROBLEM):
            check(document, response.json(), schema)
        if media_type in (RECORDS, COUNTED):
            assert response.headers["content-digest"]


def test_manifests_of_every_version_and_codec_are_as_documented(document: dict[str, Any]) -> None:
    stores = sorted(str(path) for path in GOLDEN.glob("*/*.zarr"))
    caches = tuple(f"c{number}={path}" for number, path in enumerate(stores))
    schema = document["paths"]["/v1/caches/{name}"]["get"]["responses"]["200"]["content"][JSON]["schema"]
    with serving(Settings(caches=caches, port=0)) as base:
        for number in range(len(stores)):
            manifest = httpx2.get(f"{base}/v1/caches/c{number}", timeout=60).json()
            check(document, manifest, schema)
            if manifest["format_version"] == 3:
                spoilt = manifest | {"outputs": {"logits": {"kind": "logits"}}}
                validator = Draft202012Validator({**schema, "components": document["components"]})
                assert not validator.is_valid(spoilt)
