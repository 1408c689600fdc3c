"""Why a store did not answer, and what to do about it: the sentences of :class:`StorageError`."""

from __future__ import annotations

import os
from dataclasses import dataclass

from cache_builder.format.errors import StorageError

_LONGEST_QUOTE = 300


@dataclass(frozen=True)
class Cause:
    """One way in which a store fails."""

    sentence: str
    """What happened, and what to do."""
    passes: bool
    """Whether the same request may be answered later."""


CREDENTIALS = Cause(
    "no credentials for it were found, or they cannot be used: for s3:// set AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE (AWS_SKIP_SIGNATURE=true for a public bucket); for gs:// "
    "GOOGLE_APPLICATION_CREDENTIALS; for az:// AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
    passes=False,
)
REFUSED = Cause(
    "it refuses access: look at the credentials and at what they may do there; those who may not list "
    "a bucket are refused also what is not there",
    passes=False,
)
REGION = Cause("the bucket is in another region: set AWS_REGION to the region of the bucket", passes=False)
NO_BUCKET = Cause(
    "there is no bucket of this name; look at the URL and at the endpoint, or make the bucket first",
    passes=False,
)
ADDRESS = Cause("the address is not one that it understands: look at the URL", passes=False)
CERTIFICATE = Cause(
    "its certificate is not trusted: set AWS_CA_BUNDLE or SSL_CERT_FILE to the file of the authority's "
    "certificate, or look at the endpoint",
    passes=False,
)
UNREACHABLE = Cause(
    "nothing answers: look at the network, at the host's name and at the endpoint", passes=True
)
UNKNOWN_HOST = Cause(
    "the host's name is not known: look at the network, at the URL and at the endpoint", passes=True
)
PROXY = Cause("the proxy of the environment does not answer: look at http_proxy and https_proxy", passes=True)
SLOW = Cause(
    "it did not answer in time: look at the network, try again later, or set KDCACHE_STORE_TIMEOUT_S",
    passes=True,
)
BUSY = Cause("the server failed or is overloaded: try again later", passes=True)
CUT_SHORT = Cause(
    "the answer was cut short or changed on the way: try again; does a proxy stand between?", passes=True
)
UNCLEAR = Cause("it failed: try again later", passes=True)
UNFIT = Cause("it does not accept the request: look at the URL and at the endpoint", passes=False)


def storage_error(where: str, cause: Cause, said: str) -> StorageError:
    """A :class:`StorageError`. ``where``: URL of the object; ``said``: what library or server said."""
    quote = " ".join(said.split())[:_LONGEST_QUOTE]
    return StorageError(
        f"{where} cannot be reached or read: {cause.sentence} ({quote}){_endpoint(where)}",
        waiting_helps=cause.passes,
    )


def _endpoint(where: str) -> str:
    found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return f"; the endpoint is {found}" if found and where.startswith("s3") else ""
