"""A real S3 protocol on loopback, for tests that need an object store."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import boto3
import pytest
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import DomainDispatcherApplication, ThreadedMotoServer

BUCKET = "bucket"


@contextmanager
def s3_server() -> Iterator[Any]:
    """A server with one bucket, named in the environment; gives a client of it that is not ours."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", "x")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "y")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server.start()
        host, port = server.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        try:
            client = boto3.client("s3")
            client.create_bucket(Bucket=BUCKET)
            yield client
        finally:
            server.stop()


@contextmanager
def counted_http() -> Iterator[list[str]]:
    """``METHOD /bucket/key`` of every HTTP request that the servers of this process answer meanwhile."""
    answer = DomainDispatcherApplication.__call__
    seen: list[str] = []

    def counting(application: Any, environ: dict[str, Any], start_response: Any) -> Any:
        seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        return answer(application, environ, start_response)

    with mock.patch.object(DomainDispatcherApplication, "__call__", counting):
        yield seen


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def objects(prefix: str = "") -> dict[str, bytes]:
    """Every object of the bucket below a prefix, by the rest of its key: as the server has it in memory."""
    keys = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKET].keys
    return {
        name.removeprefix(prefix).lstrip("/"): key.value
        for name, key in sorted(keys.items())
        if name.startswith(prefix)
    }


@contextmanager
def bucket_may_go() -> Iterator[Callable[[], object]]:
    """A function that takes the bucket away with all that is in it; it is back afterwards."""
    buckets = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets
    bucket = buckets[BUCKET]
    try:
        yield lambda: buckets.pop(BUCKET)
    finally:
        buckets[BUCKET] = bucket
