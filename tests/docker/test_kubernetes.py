"""The Kubernetes manifest agrees with the command line, the application and the image."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
import typer
import typer.main
import yaml

from cache_builder.cli.app import app as builder
from cache_builder.format.errors import ConfigError
from cache_builder.format.locks import lease
from logit_server.run import serving
from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.docker.dockerfile import parse
from tests.docker.test_docker import DOCKER, as_bytes, default_port, memory_of

PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_END_S = 5
"""Seconds between the drain and the end of a server (see ``logit_server.supervision``)."""


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    found = yaml.safe_load_all((DOCKER / "kubernetes" / "server.yaml").read_text())
    return {item["kind"]: item for item in found}


@pytest.fixture(scope="module")
def template(objects: dict[str, Any]) -> dict[str, Any]:
    return dict(objects["Deployment"]["spec"]["template"])


@pytest.fixture(scope="module")
def pod(template: dict[str, Any]) -> dict[str, Any]:
    return dict(template["spec"])


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod["containers"]
    return dict(found)


@pytest.fixture(scope="module")
def settings(container: dict[str, Any]) -> Settings:
    """What the arguments of the container set, read as the command line reads it."""
    root = typer.main.get_command(builder)
    serve = root.get_command(typer.Context(root), "serve")  # type: ignore[attr-defined]
    parsed = serve.make_context("serve", list(container["args"]))
    given = {name: value for name, value in parsed.params.items() if name in Settings.model_fields}
    return Settings.model_validate({name: value for name, value in given.items() if value is not None})


@pytest.mark.parametrize("name", ["server.yaml", "builders.yaml"])
def test_the_manifests_follow_the_schemas_of_kubernetes(name: str) -> None:
    program = Path(sys.executable).with_name("kubernetes-validate")
    words = [program, "--strict", DOCKER / "kubernetes" / name]
    checked = subprocess.run(words, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_drained_node_and_the_autoscaler_leave_two_replicas(objects: dict[str, Any]) -> None:
    deployment = objects["Deployment"]
    budget, scaler = objects["PodDisruptionBudget"]["spec"], objects["HorizontalPodAutoscaler"]["spec"]
    assert budget["selector"] == deployment["spec"]["selector"]
    assert budget["maxUnavailable"] == 1
    assert deployment["spec"]["replicas"] == scaler["minReplicas"] == 2
    assert scaler["scaleTargetRef"] == {
        "apiVersion": deployment["apiVersion"], "kind": "Deployment", "name": deployment["metadata"]["name"]
    }  # fmt: skip


def test_the_autoscaler_needs_nothing_that_a_cluster_may_lack(objects: dict[str, Any]) -> None:
    # One metric that cannot be fetched keeps it from ever taking a replica away.
    assert [metric["type"] for metric in objects["HorizontalPodAutoscaler"]["spec"]["metrics"]] == [
        "Resource"
    ]


def with_the_adapter() -> dict[str, Any]:
    """The autoscaler with the lines that are commented out until the adapter is there."""
    text = (DOCKER / "kubernetes" / "server.yaml").read_text()
    before, _, after = text.partition("    # Once the adapter is there:\n")
    put_in = re.sub(r"\A(?:    # .*\n)+", lambda lines: lines[0].replace("    # ", "    "), after)
    assert put_in != after
    return {item["kind"]: item for item in yaml.safe_load_all(before + put_in)}["HorizontalPodAutoscaler"]


def test_the_metric_that_the_autoscaler_may_look_at_is_one_of_the_server(tmp_path: Path) -> None:
    metrics = with_the_adapter()["spec"]["metrics"]
    (name,) = (metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods")
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 40, 10))
    with serving(Settings(caches=(str(tmp_path / "c.zarr"),), port=0)) as base:
        told = httpx2.get(f"{base}/metrics").text
    assert re.search(rf"^# TYPE {name} gauge$", told, flags=re.MULTILINE)
    assert f"{name} " in told
    assert name in (DOCKER.parent / "docs" / "operating.md").read_text().partition("## Kubernetes")[2]


@pytest.fixture(scope="module")
def job() -> dict[str, Any]:
    return dict(yaml.safe_load((DOCKER / "kubernetes" / "builders.yaml").read_text()))


@pytest.fixture(scope="module")
def builder_container(job: dict[str, Any]) -> dict[str, Any]:
    (found,) = job["spec"]["template"]["spec"]["containers"]
    return dict(found)


def test_the_builders_share_one_output_with_flags_that_exist(builder_container: dict[str, Any]) -> None:
    root = typer.main.get_command(builder)
    build = root.get_command(typer.Context(root), "build")  # type: ignore[attr-defined]
    command, *words = builder_container["args"]
    assert command == "build"
    parsed = build.make_context("build", words).params
    assert parsed["share"] is True
    assert "://" in parsed["out"]


def test_a_builder_that_ends_is_started_again_unless_its_settings_are_wrong(job: dict[str, Any]) -> None:
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]
    ignored, failed = spec["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert ignored["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert failed["onExitCodes"]["values"] == [ConfigError.exit_code]


def test_the_documents_say_after_how_long_a_row_block_is_somebody_elses() -> None:
    said = f"{lease.LEASE_S + lease._WATCH_S:.0f} s"
    assert f"goes to another pod after {said}" in (DOCKER / "kubernetes" / "builders.yaml").read_text()
    for name in ("operating.md", "scale.md"):
        assert said in (DOCKER.parent / "docs" / name).read_text()


def test_a_builder_may_do_as_little_as_it_can(job: dict[str, Any], builder_container: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    (user,) = parse(DOCKER / "Dockerfile")["builder"].all("USER")
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    rights = builder_container["securityContext"]
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount for mount in builder_container["volumeMounts"]}
    assert {item["name"] for item in pod["volumes"]} == {mount["name"] for mount in mounts.values()}
    assert {"/work", "/tmp", "/dev/shm"} <= set(mounts)
    assert mounts["/data"]["readOnly"] is True


def volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (item for item in pod["volumes"] if item["name"] == name)
    return dict(found)


def as_quantity(text: str) -> int:
    return as_bytes(f"{text}B")


def test_the_arguments_are_settings_of_the_server(settings: Settings, container: dict[str, Any]) -> None:
    assert settings.workers == 2
    assert settings.log_format == "json"
    assert settings.caches
    assert {name.partition("=")[0] for name in container["args"]} >= {"--page-dir", "--page-bytes"}


def test_what_is_served_and_written_lies_on_volumes(
    settings: Settings, container: dict[str, Any], pod: dict[str, Any]
) -> None:
    mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
    assert {item["name"] for item in pod["volumes"]} == {mount["name"] for mount in mounts.values()}
    for cache in settings.caches:
        assert mounts[str(Path(cache).parent)]["readOnly"] is True
    pages = mounts[str(settings.page_dir)]
    assert "emptyDir" in volume(pod, pages["name"])
    assert "emptyDir" in volume(pod, mounts["/tmp"]["name"])


def test_limits_fit_the_settings(settings: Settings, container: dict[str, Any], pod: dict[str, Any]) -> None:
    pages = volume(pod, "pages")["emptyDir"]
    assert pages["medium"] == "Memory"
    assert as_quantity(pages["sizeLimit"]) > settings.page_bytes
    limit = as_quantity(container["resources"]["limits"]["memory"])
    assert limit >= memory_of(settings)
    assert as_quantity(container["resources"]["requests"]["memory"]) <= limit


def test_the_server_may_drain(settings: Settings, container: dict[str, Any], pod: dict[str, Any]) -> None:
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][-1])
    assert pod["terminationGracePeriodSeconds"] > pause + settings.drain_s + _END_S


def test_the_container_may_do_as_little_as_it_can(container: dict[str, Any], pod: dict[str, Any]) -> None:
    (user,) = parse(DOCKER / "Dockerfile")["server"].all("USER")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert f"{pod['securityContext']['runAsUser']}:{pod['securityContext']['runAsGroup']}" == user
    rights = container["securityContext"]
    assert rights["allowPrivilegeEscalation"] is False
    assert rights["readOnlyRootFilesystem"] is True
    assert rights["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


def test_the_service_sets_no_variables_that_look_like_settings(pod: dict[str, Any]) -> None:
    assert pod["enableServiceLinks"] is False


def test_the_token_comes_from_a_secret_and_is_not_in_the_manifest(container: dict[str, Any]) -> None:
    (variable,) = container["env"]
    assert variable["name"] == "KDCACHE_TOKEN"
    assert set(variable["valueFrom"]) == {"secretKeyRef"}
    assert "value" not in variable


def test_ports_and_labels_lead_to_the_container(
    objects: dict[str, Any], template: dict[str, Any], container: dict[str, Any]
) -> None:
    (port,), (published,) = container["ports"], objects["Service"]["spec"]["ports"]
    assert port["containerPort"] == published["port"] == default_port()
    assert published["targetPort"] == port["name"]
    assert objects["Service"]["spec"]["selector"] == template["metadata"]["labels"]
    assert objects["Deployment"]["spec"]["selector"]["matchLabels"] == template["metadata"]["labels"]
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(default_port())
    assert {container[probe]["httpGet"]["port"] for probe in PROBES} == {port["name"]}


def test_probes_and_scrapes_ask_what_the_server_answers(
    template: dict[str, Any], container: dict[str, Any], tmp_path: Path
) -> None:
    paths = {probe: container[probe]["httpGet"]["path"] for probe in PROBES}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    write_synthetic_cache(tmp_path / "c.zarr", synthetic_logits(1, 40, 10))
    bearer = {"Authorization": "Bearer a-secret"}
    with serving(Settings(caches=(str(tmp_path / "c.zarr"),), port=0, token="a-secret")) as base:
        # The kubelet sends no token, and the pod's own address as Host.
        for path in paths.values():
            assert httpx2.get(base + path).status_code == 200
        scraped = template["metadata"]["annotations"]["prometheus.io/path"]
        assert httpx2.get(base + scraped).status_code == 401
        assert httpx2.get(base + scraped, headers=bearer).status_code == 200
