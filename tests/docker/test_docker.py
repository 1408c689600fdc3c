"""The images cannot be built where the tests run; what can be known without building them is checked."""

import fnmatch
import os
import re
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from pydantic import ByteSize, TypeAdapter

from logit_server.settings import Settings
from tests.caches import synthetic_logits, write_synthetic_cache
from tests.docker.dockerfile import Stage, healthcheck, lineage, parse

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
TORCHLESS = {"torch", "torchvision", "sklearn", "accelerate", "trainer", "httpx2"}


TARGETS = ("builder", "trainer", "server")


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    return parse(DOCKER / "Dockerfile")


@pytest.fixture(scope="module")
def image(stages: dict[str, Stage]) -> Stage:
    return stages["server"]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"])


@pytest.fixture(scope="module")
def service(services: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A replica of the server."""
    return services["server-1"]


@pytest.fixture(scope="module")
def proxy(services: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return services["proxy"]


def as_bytes(text: str) -> int:
    """Bytes of a size such as "2GiB"."""
    return int(TypeAdapter(ByteSize).validate_python(text))


WORKER_BYTES = 384 * 2**20
"""What a worker takes beside pages, bodies and answers: the interpreter, ids, blocks being decoded."""


def memory_of(settings: Settings) -> int:
    """Most bytes of memory that a server with these settings takes, pages in memory included."""
    a_worker = WORKER_BYTES + settings.max_bodies_bytes + settings.max_unread_bytes
    return settings.page_bytes + settings.workers * a_worker


def default_port() -> int:
    return int(Settings.model_fields["port"].default)


def linted(*words: str | Path) -> None:
    """Run a program of the environment that checks a file."""
    program = Path(sys.executable).with_name(str(words[0]))
    checked = subprocess.run([program, *words[1:]], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_hadolint_finds_nothing() -> None:
    linted("hadolint", DOCKER / "Dockerfile")


def test_compose_follows_its_schema() -> None:
    linted("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")


def test_the_server_is_a_slim_python_that_the_project_supports(
    stages: dict[str, Stage], project: dict[str, Any]
) -> None:
    # A virtual environment moves between equal ones only.
    assert stages["server"].base == stages["server-environment"].base
    version = re.fullmatch(r"python:(\d+)\.(\d+)-slim", stages["server"].base)
    assert version
    minimum = re.fullmatch(r">=(\d+)\.(\d+)", project["project"]["requires-python"])
    assert minimum
    assert tuple(map(int, version.groups())) >= tuple(map(int, minimum.groups()))


def test_builder_and_trainer_stand_on_cuda_of_a_certain_version(stages: dict[str, Stage]) -> None:
    for target in ("builder", "trainer"):
        base = lineage(stages, target)[0].base
        assert re.fullmatch(r"nvidia/cuda:\d+\.\d+\.\d+-base-ubuntu24\.04", base)


def test_a_build_without_a_target_is_the_server(stages: dict[str, Stage]) -> None:
    assert list(stages)[-1] == "server"
    assert set(TARGETS) < set(stages)


def extras(stages: dict[str, Stage], stage: str, project: dict[str, Any]) -> set[str]:
    """Names of what the extras of a stage and the project itself need."""
    (argument,) = stages[stage].all("ARG")
    known = project["project"]["optional-dependencies"]
    wanted = project["project"]["dependencies"] + [
        need for extra in argument.removeprefix("EXTRAS=").split(",") for need in known[extra]
    ]
    return {re.split(r"[^A-Za-z0-9_-]", requirement)[0] for requirement in wanted}


def test_the_images_install_what_they_need_at_the_tested_versions(
    stages: dict[str, Stage], project: dict[str, Any]
) -> None:
    for stage in ("builder", "trainer", "server-environment"):
        (install,) = (run for run in stages[stage].all("RUN") if "pip install" in run)
        assert '"$(echo /dist/kdcache-*.whl)[${EXTRAS}]"' in install
        assert "--constraint /dist/constraints.txt" in install
    assert not extras(stages, "server-environment", project) & TORCHLESS
    assert {"torch", "torchvision"} <= extras(stages, "builder", project)
    assert {"torch", "accelerate", "httpx2"} <= extras(stages, "trainer", project)


def copied(stages: dict[str, Stage]) -> set[str]:
    """What the build takes from the repository."""
    copies = [copy.split() for stage in stages.values() for copy in stage.all("COPY") if "--from" not in copy]
    return {source for *sources, _ in copies for source in sources}


def test_all_that_is_copied_exists_and_is_let_into_the_build(
    stages: dict[str, Stage], project: dict[str, Any]
) -> None:
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    let_in = {rule[1:] for rule in rules if rule.startswith("!")}
    assert copied(stages) == let_in
    assert all((ROOT / name).exists() for name in let_in)
    # What the build of the package itself asks for.
    needed = {project["project"]["readme"], *project["project"]["license-files"], "pyproject.toml"}
    assert needed | set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]) <= let_in
    assert any(fnmatch.fnmatch("cache_builder/__pycache__", rule) for rule in rules if rule != "*")


@pytest.mark.parametrize("target", TARGETS)
def test_no_image_runs_as_root(stages: dict[str, Stage], target: str) -> None:
    names = [name for name, _ in stages[target].instructions]
    (user,) = stages[target].all("USER")
    assert user.split(":")[0].isdigit()
    assert int(user.split(":")[0]) > 0
    # Whatever still needs root comes before.
    assert "RUN" not in names[names.index("USER") :]
    assert names.index("USER") < names.index("ENTRYPOINT")


@pytest.mark.parametrize("target", TARGETS)
def test_the_commands_exist(stages: dict[str, Stage], target: str, project: dict[str, Any]) -> None:
    assert stages[target].words("ENTRYPOINT")[0] in project["project"]["scripts"]
    assert any("/opt/kdcache/bin" in line for stage in lineage(stages, target) for line in stage.all("ENV"))


def test_only_the_server_has_a_health_check(stages: dict[str, Stage]) -> None:
    assert [name for name, stage in stages.items() if stage.all("HEALTHCHECK")] == ["server"]
    assert healthcheck(stages["server"])[0] == "python"


def test_one_port_everywhere(image: Stage, proxy: dict[str, Any]) -> None:
    entrypoint = image.words("ENTRYPOINT")
    (published,) = proxy["ports"]
    assert {
        int(image.all("EXPOSE")[0]),
        int(entrypoint[entrypoint.index("--port") + 1]),
        int(re.findall(r"127\.0\.0\.1:(\d+)/readyz", healthcheck(image)[-1])[0]),
        int(published.split(":")[-1]),
    } == {default_port()}


def test_a_signal_reaches_the_server_and_it_may_drain(
    image: Stage, service: dict[str, Any], proxy: dict[str, Any]
) -> None:
    assert image.all("STOPSIGNAL") == ["SIGTERM"]
    assert image.words("ENTRYPOINT")  # exec form: no shell between docker and the server
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > Settings.model_fields["drain_s"].default
    assert proxy["stop_grace_period"] == service["stop_grace_period"]


def test_compose_builds_this_image_from_the_repository(service: dict[str, Any]) -> None:
    context = (DOCKER / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert service["build"]["target"] == "server"


def test_compose_runs_two_replicas_that_are_alike_behind_one_proxy(
    services: dict[str, dict[str, Any]], proxy: dict[str, Any]
) -> None:
    assert services["server-1"] == services["server-2"]
    assert set(services) == {"server-1", "server-2", "proxy"}
    assert set(proxy["depends_on"]) == {"server-1", "server-2"}
    config = (DOCKER / "proxy" / "Caddyfile").read_text()
    assert f"{{$REPLICAS:server-1:{default_port()} server-2:{default_port()}}}" in config
    (volume,) = proxy["volumes"]
    assert (DOCKER / volume["source"]).samefile(DOCKER / "proxy" / "Caddyfile")


@pytest.mark.parametrize("name", ["server-1", "server-2", "proxy"])
def test_compose_gives_away_as_little_as_it_can(services: dict[str, dict[str, Any]], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    # The caddy of this image has cap_net_bind_service=+ep on its file: without that capability in its bounds
    # execve(2) fails. Nothing else needs any.
    needed = {"cap_add": ["NET_BIND_SERVICE"]} if service["image"].startswith("caddy:") else {}
    assert {key: value for key, value in service.items() if key == "cap_add"} == needed
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    # The servers are reached through the proxy alone, and that from this machine alone.
    published = service.get("ports", [])
    assert bool(published) == (name == "proxy")
    assert all(port.startswith("127.0.0.1:") for port in published)
    (volume,) = service["volumes"]
    assert volume["read_only"] is True
    assert volume["bind"]["create_host_path"] is False


def test_compose_serves_what_it_mounts(service: dict[str, Any]) -> None:
    (volume,) = service["volumes"]
    assert service["command"] == [volume["target"]]


def test_compose_sets_settings_that_exist_and_pages_fit_into_tmp(service: dict[str, Any]) -> None:
    given = {name.removeprefix("KDCACHE_").lower(): value for name, value in service["environment"].items()}
    assert set(given) <= set(Settings.model_fields)
    (tmpfs,) = service["tmpfs"]
    size = re.search(r"^/tmp:.*\bsize=(\w+)", tmpfs)
    assert size
    assert as_bytes(given["page_bytes"]) < as_bytes(f"{size[1]}ib")


def test_the_memory_that_compose_allows_fits_the_settings(service: dict[str, Any]) -> None:
    given = {name.removeprefix("KDCACHE_").lower(): value for name, value in service["environment"].items()}
    assert as_bytes(f"{service['mem_limit']}ib") >= memory_of(Settings.model_validate(given))


def test_everybody_is_answered_only_where_the_port_is_published_on_this_machine(
    image: Stage, service: dict[str, Any], proxy: dict[str, Any]
) -> None:
    assert service["environment"]["KDCACHE_ALLOW_ANONYMOUS"] == "true"
    assert all(published.startswith("127.0.0.1:") for published in proxy["ports"])
    # Whoever runs the image says so himself, or gives it a token.
    assert not any("ANONYMOUS" in line for line in image.all("ENV"))
    assert not any("anonymous" in word or "root" in word for word in image.words("ENTRYPOINT"))


def environment_without_torch(folder: Path) -> dict[str, str]:
    """An environment in which what the image lacks cannot be imported."""
    for name in TORCHLESS:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError({name!r}, name={name!r})\n")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("KDCACHE_")}
    return inherited | {"PYTHONPATH": str(folder)}


def test_the_command_of_the_image_serves_a_cache_and_its_health_check_passes(
    image: Stage, service: dict[str, Any], tmp_path: Path
) -> None:
    cache = tmp_path / "served.zarr"
    write_synthetic_cache(cache, synthetic_logits(1, 40, 10))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    bin_folder = Path(sys.executable).parent
    command = [word.replace(str(default_port()), port) for word in [*image.words("ENTRYPOINT"), str(cache)]]
    check = [word.replace(str(default_port()), port) for word in healthcheck(image)]
    environment = environment_without_torch(tmp_path) | service["environment"]
    environment["KDCACHE_ALLOW_ROOT"] = "true"  # The tests may run as root; the image does not.
    with subprocess.Popen([bin_folder / command[0], *command[1:]], env=environment, text=True) as server:
        try:
            assert _until_it_passes([sys.executable, *check[1:]], server)
            (listed,) = httpx2.get(f"http://127.0.0.1:{port}/v1/caches", timeout=120).json()["caches"]
            url = f"http://127.0.0.1:{port}/v1/caches/{listed['name']}/views/0/records"
            view = httpx2.get(url, timeout=120)
            assert len(view.content) == 40 * listed["record_bytes"]
        finally:
            server.terminate()
        assert server.wait(120) == 0


def _until_it_passes(check: list[str], server: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + 240
    while server.poll() is None and time.monotonic() < deadline:
        if subprocess.run(check, capture_output=True, check=False).returncode == 0:
            return True
    return False


def test_the_image_without_a_cache_shows_how_to_use_it(image: Stage, tmp_path: Path) -> None:
    words = [*image.words("ENTRYPOINT"), *image.words("CMD")]
    ran = subprocess.run(
        [Path(sys.executable).with_name(words[0]), *words[1:]],
        env=environment_without_torch(tmp_path), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "CACHE" in ran.stdout
