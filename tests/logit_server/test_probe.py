from __future__ import annotations

import shutil
import socket
import threading
from pathlib import Path

import pytest
import trustme

from logit_server.probe import ask, main
from logit_server.run import serving
from logit_server.settings import Settings


def test_a_server_that_is_ready_passes(cache_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(Settings(caches=(str(cache_path),), port=0, token="a-secret")) as base:
        assert main([f"{base}/readyz"]) == 0
    assert capsys.readouterr().out == ""


def test_a_server_whose_store_is_gone_fails_and_says_why(
    own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(Settings(caches=(str(own_cache),), port=0)) as base:
        shutil.rmtree(own_cache)
        assert main([f"{base}/readyz"]) == 1
        assert "StorageError" in capsys.readouterr().out
        assert main([f"{base}/livez"]) == 0


def test_a_server_of_https_is_found_by_a_probe_of_http(cache_path: Path, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("logits.example.org").private_key_and_cert_chain_pem.write_to_path(
        str(tmp_path / "both.pem")
    )
    settings = Settings(
        caches=(str(cache_path),), port=0, tls_cert=tmp_path / "both.pem", tls_key=tmp_path / "both.pem"
    )
    with serving(settings) as base:
        assert main([f"{base}/readyz".replace("https:", "http:")]) == 0
        assert main([f"{base}/readyz"]) == 0


def test_where_nobody_listens_it_fails() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    status, said = ask(f"http://127.0.0.1:{port}/readyz")
    assert status == 0
    assert str(port) in said


def test_how_it_is_used_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 2
    assert "usage" in capsys.readouterr().out


def test_what_speaks_neither_http_nor_https_is_named_by_both_errors() -> None:
    def answer() -> None:
        for _ in range(2):
            connection, _ = server.accept()
            with connection:
                connection.recv(2**16)
                connection.sendall(b"SSH-2.0-none\r\n")

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer)
        thread.start()
        status, said = ask(f"http://127.0.0.1:{server.getsockname()[1]}/readyz")
        thread.join()
    assert status == 0
    assert "BadStatusLine: SSH-2.0-none" in said
    assert "SSLError" in said
