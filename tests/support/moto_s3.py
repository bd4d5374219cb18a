"""S3 as moto plays it. moto has no GetObjectRetention; `Retention` answers it from HeadObject, as S3's documentation
says it is answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto import mock_aws


class Retention:
    """GetObjectRetention, from what moto says to HeadObject."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._asked: dict[str, str] = {}
        events = client.meta.events
        events.register("provide-client-params.s3.GetObjectRetention", self._note)
        events.register("before-call.s3.GetObjectRetention", self._answer)

    def _note(self, params: dict[str, str], **_: Any) -> None:
        self._asked = params

    def _answer(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        try:
            head = self._client.head_object(**self._asked)
        except ClientError:
            return SimpleNamespace(status_code=404), {"Error": {"Code": "NoSuchKey", "Message": "not there"}}
        if "ObjectLockMode" not in head:
            code = "NoSuchObjectLockConfiguration"
            return SimpleNamespace(status_code=404), {"Error": {"Code": code, "Message": "no retention"}}
        found = {"Mode": head["ObjectLockMode"], "RetainUntilDate": head["ObjectLockRetainUntilDate"]}
        return SimpleNamespace(status_code=200), {"Retention": found}


@contextmanager
def moto_s3() -> Iterator[Any]:
    """A client. One is enough for a whole module of tests: botocore takes most of a second to make one."""
    with mock_aws():
        client = boto3.client("s3", region_name="us-east-1")
        Retention(client)
        yield client
