import ssl
from pathlib import Path

import httpx2
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from cache_builder.format import ConfigError
from logit_server.run import serving
from logit_server.settings import Settings
from logit_server.tls import scheme_of, tls_arguments
from tests.logit_server.processes import refused

PASSWORD = "open sesame"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def files(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a certificate, its key, the same key with a password (locked), and another key."""
    folder = tmp_path_factory.mktemp("tls")
    issued = authority.issue_cert("127.0.0.1")
    for blob in issued.cert_chain_pems:
        blob.write_to_path(folder / "cert.pem", append=True)
    issued.private_key_pem.write_to_path(folder / "key.pem")
    authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(folder / "other.pem")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(PASSWORD.encode()),
    )
    (folder / "locked.pem").write_bytes(locked)
    return folder


@pytest.mark.parametrize(("key", "password"), [("key.pem", None), ("locked.pem", PASSWORD)])
def test_a_server_with_a_certificate_speaks_https(
    key: str, password: str | None, files: Path, authority: trustme.CA, cache_path: Path
) -> None:
    settings = Settings(
        caches=(str(cache_path),), port=0, tls_cert=files / "cert.pem", tls_key=files / key,
        tls_key_password=password,
    )  # fmt: skip
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with serving(settings) as base:
        assert base.startswith("https://127.0.0.1:")
        with httpx2.Client(verify=context, base_url=base, trust_env=False) as client:
            assert client.get("/v1/caches/synthetic/views/0/records").status_code == 200
        with pytest.raises(httpx2.TransportError):
            httpx2.get(base.replace("https", "http") + "/healthz")


def test_without_a_certificate_it_is_http() -> None:
    assert (scheme_of(Settings()), tls_arguments(Settings())) == ("http", {})


@pytest.mark.parametrize(
    ("cert", "key", "password", "told"),
    [
        ("cert.pem", None, None, "--tls-cert is given without --tls-key"),
        (None, "key.pem", None, "--tls-key is given without --tls-cert"),
        ("none.pem", "key.pem", None, r"--tls-cert .*none\.pem cannot be read: No such file"),
        ("cert.pem", "none.pem", None, r"--tls-key .*none\.pem cannot be read"),
        ("cert.pem", "other.pem", None, "name files that belong together"),
        ("key.pem", "cert.pem", None, "name files that belong together"),
        ("cert.pem", "locked.pem", None, "KDCACHE_TLS_KEY_PASSWORD is not set"),
        ("cert.pem", "locked.pem", "wrong", "KDCACHE_TLS_KEY_PASSWORD does not open it"),
    ],
)
def test_what_does_not_fit_together_is_refused_with_what_to_do(
    cert: str | None, key: str | None, password: str | None, told: str, files: Path
) -> None:
    settings = Settings(
        tls_cert=cert and files / cert, tls_key=key and files / key, tls_key_password=password
    )
    with pytest.raises(ConfigError, match=told) as caught:
        tls_arguments(settings)
    assert "wrong" not in str(caught.value)


def test_a_server_does_not_start_without_its_key(files: Path, cache_path: Path) -> None:
    ran = refused(cache_path, tls_cert=files / "cert.pem", workers=2)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--tls-key" in ran.stderr
