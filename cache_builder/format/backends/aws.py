"""Where S3 is, and as whom we ask: environment, profiles and roles, found as every AWS tool finds them.

obstore reads the environment alone. botocore also knows ``~/.aws`` with its profiles, single sign-on and
processes that give credentials; where it is installed, it is asked.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from cache_builder.format.backends import causes
from cache_builder.format.backends.causes import storage_error

_DEFAULT_REGION = "us-east-1"
_CREDENTIALS_KEPT = timedelta(minutes=5)
"""botocore renews credentials ten minutes before they end, so these are always good for longer."""


def s3_options(root: str) -> dict[str, Any]:
    """Options of obstore's ``S3Store``; ``root``: the bucket's URL, for messages.

    Raises :class:`StorageError` where there are no credentials or the endpoint is no URL.
    """
    try:
        import botocore.session
    except ImportError:
        options = _of_environment(root)
    else:
        options = _of_session(root, botocore.session.Session())
    if _is_anonymous():
        options = {name: value for name, value in options.items() if name != "credential_provider"}
        options["skip_signature"] = True
    endpoint = options.get("endpoint")
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise storage_error(
            root, causes.ADDRESS, f"expected an endpoint such as https://host, got {endpoint!r}"
        )
    return options


def _is_anonymous() -> bool:
    given = (os.environ.get(name, "") for name in ("AWS_SKIP_SIGNATURE", "FSSPEC_S3_ANON"))
    return any(value.lower() in ("1", "true", "yes") for value in given)


def _of_environment(root: str) -> dict[str, Any]:
    if os.environ.get("AWS_PROFILE"):
        raise storage_error(root, causes.CREDENTIALS, "AWS_PROFILE is set; profiles need boto3: kdcache[s3]")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return {"endpoint": endpoint} if endpoint else {}


def _of_session(root: str, session: Any) -> dict[str, Any]:
    from botocore.configprovider import ConfiguredEndpointProvider
    from botocore.exceptions import BotoCoreError
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        region = os.environ.get("AWS_REGION") or session.get_config_variable("region")
        options = {"region": region or _DEFAULT_REGION}
        # Private to botocore, and the one place that knows all four ways to name an endpoint.
        found = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
        if found or os.environ.get("FSSPEC_S3_ENDPOINT_URL"):
            options["endpoint"] = found or os.environ["FSSPEC_S3_ENDPOINT_URL"]
        if _is_anonymous():
            return options
        if session.get_credentials() is None:
            raise storage_error(root, causes.CREDENTIALS, "none in the environment, in ~/.aws or of a role")
        provider: Any = Boto3CredentialProvider(session, ttl=_CREDENTIALS_KEPT)
        return options | {"credential_provider": provider}
    except BotoCoreError as error:
        raise storage_error(root, causes.CREDENTIALS, str(error)) from error
