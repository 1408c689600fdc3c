"""obstore's clients of S3, Google Cloud Storage and Azure, as the environment describes them."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult

from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from cache_builder.format.backends.aws import s3_options
from cache_builder.format.backends.over_obstore import ObstoreBackend

_NEVER = timedelta(days=1)
"""Of a whole request: how long it may take depends on how much it carries."""
_LONGEST_CONNECT_S = 10.0


def s3_backend(bucket: str, timeout_s: float) -> ObstoreBackend:
    """A bucket of S3, or of whatever speaks its protocol at ``AWS_ENDPOINT_URL``."""
    options = s3_options(f"s3://{bucket}")
    return _backend(
        f"s3://{bucket}",
        lambda client: S3Store(bucket, client_options=client, disable_bulk_delete=True, **options, **_ONCE),
        timeout_s,
        options.get("endpoint"),
    )


def google_backend(bucket: str, timeout_s: float) -> ObstoreBackend:
    """A bucket of Google Cloud Storage. Conditions there refer to an object's generation."""
    return _backend(
        f"gs://{bucket}",
        lambda client: GCSStore(bucket, client_options=client, **_ONCE),
        timeout_s,
        None,
        tag="version",
    )


def azure_backend(place: SplitResult, timeout_s: float) -> ObstoreBackend:
    """A container of Azure: ``az://CONTAINER``, or ``abfss://CONTAINER@ACCOUNT.dfs.core.windows.net``."""
    container = place.username or place.netloc
    options = _of_connection_string(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    if place.username and place.hostname:
        options["account_name"] = place.hostname.partition(".")[0]
    endpoint = options.get("endpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT")
    if os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true"):
        endpoint = endpoint or "http://127.0.0.1"
    # With its account, which the environment may say otherwise where the URL is opened again.
    root = f"abfss://{place.netloc}" if place.username else f"az://{container}"
    return _backend(
        root,
        lambda client: AzureStore(container, client_options=client, **options, **_ONCE),
        timeout_s,
        endpoint,
    )


def _of_connection_string(text: str) -> dict[str, Any]:
    """What obstore's client takes of an Azure connection string, as Azure's own libraries read it."""
    given = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
    names = {
        "AccountName": "account_name",
        "AccountKey": "account_key",
        "BlobEndpoint": "endpoint",
        "SharedAccessSignature": "sas_key",
    }
    return {option: given[name] for name, option in names.items() if name in given}


_ONCE: dict[str, Any] = {"retry_config": {"max_retries": 0, "retry_timeout": _NEVER}}
"""Each request is made once: see :mod:`over_obstore`."""


def _backend(
    root: str,
    make: Callable[[Any], ObjectStore],
    timeout_s: float,
    endpoint: str | None,
    tag: str = "e_tag",
) -> ObstoreBackend:
    client: dict[str, Any] = {
        "allow_http": (endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=min(timeout_s, _LONGEST_CONNECT_S)),
        "timeout": _NEVER,
    }
    authority = os.environ.get("AWS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
    if authority:
        client["root_certificate"] = Path(authority).read_bytes()
    reading = make({**client, "read_timeout": timedelta(seconds=timeout_s)})
    return ObstoreBackend(root, reading, make(client), timeout_s=timeout_s, tag=tag)
