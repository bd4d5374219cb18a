"""Fetching files and objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.media.errors import MediaError
from pipeline.media.fetch import Fetcher
from schemas.deadletter import RejectCode
from schemas.decision import ReasonCode
from tests.support.fetching import DATA, Server, body, deferred, drip, fetching, ref, rejected
from tests.support.fetching import server as server  # noqa: PLC0414 - a fixture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a photo.png").write_bytes(DATA)
    (tmp_path / "outside.png").write_bytes(DATA)
    return tmp_path / "root"


def test_a_file_below_a_root_is_read(root: Path) -> None:
    uri = (root / "sub" / "a photo.png").as_uri()
    with fetching(file_roots=[root]) as fetcher:
        assert fetcher.fetch(ref(uri)).data == DATA
        assert fetcher.fetch(ref(uri.replace("file://", "file://localhost"))).data == DATA
        assert fetcher.fetch(ref(uri.replace("file://", "FILE://"))).data == DATA


def test_nothing_outside_the_roots_is_read(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "outside.png")
    (root / "linked").symlink_to(root.parent)
    (root.parent / "root2").mkdir()
    (root.parent / "root2" / "a.png").write_bytes(DATA)
    os.mkfifo(root / "fifo")
    refused = [
        (root / "link.png").as_uri(),
        (root / "linked" / "outside.png").as_uri(),
        f"{root.as_uri()}/../outside.png",
        f"{root.as_uri()}/%2e%2e/outside.png",
        (root.parent / "root2" / "a.png").as_uri(),
        root.as_uri(),
        (root / "sub").as_uri(),
        (root / "fifo").as_uri(),
        f"file://elsewhere{root}/sub/a%20photo.png",
        f"{root.as_uri()}/sub/a%00.png",
        "file:relative.png",
    ]
    with fetching(file_roots=[root]) as fetcher:
        for uri in refused:
            assert rejected(fetcher, ref(uri)) is RejectCode.URI_REFUSED, uri
    with fetching() as fetcher:
        assert rejected(fetcher, ref((root / "sub" / "a%20photo.png").as_uri())) is RejectCode.URI_REFUSED


def test_a_link_that_stays_below_the_root_is_followed(root: Path) -> None:
    (root / "link.png").symlink_to(root / "sub" / "a photo.png")
    with fetching(file_roots=[root]) as fetcher:
        assert fetcher.fetch(ref((root / "link.png").as_uri())).data == DATA


def test_a_link_slipped_in_after_the_check_is_not_followed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "link.png").symlink_to(root.parent / "outside.png")
    (root / "linked").symlink_to(root.parent)
    with fetching(file_roots=[root]) as fetcher:
        monkeypatch.setattr(os.path, "realpath", str)
        for path in (root / "link.png", root / "linked" / "outside.png"):
            assert rejected(fetcher, ref(path.as_uri())) in (RejectCode.URI_REFUSED, RejectCode.SOURCE_GONE)


def test_a_missing_file_is_gone_and_a_large_one_too_large(root: Path) -> None:
    with fetching(file_roots=[root], max_bytes=1000) as fetcher:
        assert rejected(fetcher, ref((root / "no.png").as_uri())) is RejectCode.SOURCE_GONE
        with pytest.raises(MediaError) as caught:
            fetcher.fetch(ref((root / "sub" / "a photo.png").as_uri()))
    assert caught.value.code is ReasonCode.MEDIA_TOO_LARGE


# object stores


def s3(server: Server) -> dict[str, Any]:
    endpoint = f"http://127.0.0.1:{server.port}"
    options = {"endpoint": endpoint, "region": "us-east-1", "skip_signature": "true"}
    return {"object_roots": ["s3://media/in"], "object_options": {"s3": options}}


def test_an_object_of_a_listed_bucket_is_read(server: Server) -> None:
    last_modified = "Mon, 01 Jan 2024 00:00:00 GMT"
    server.answers["/media/in/a.png"] = body(DATA, Content_Type="image/png", Last_Modified=last_modified, ETag='"1"')
    with fetching(server, **s3(server)) as fetcher:
        fetched = fetcher.fetch(ref("s3://media/in/a.png"))
        assert (fetched.data, fetched.content_type) == (DATA, "image/png")
        fetcher.fetch(ref("s3://media/in/a.png?versionId=v7"))
        assert server.asked[1].endswith("?versionId=v7")
        for uri in ("s3://media/a.png", "s3://other/in/a.png", "s3://media/in/../a.png", "gs://media/in/a.png"):
            assert rejected(fetcher, ref(uri)) is RejectCode.URI_REFUSED
    with fetching(server, max_bytes=1000, **s3(server)) as fetcher, pytest.raises(MediaError):
        fetcher.fetch(ref("s3://media/in/a.png"))


def test_a_missing_object_is_gone_and_a_failing_store_defers(server: Server) -> None:
    server.answers["/media/in/no.png"] = body(b"<Error><Code>NoSuchKey</Code></Error>", 404)
    server.answers["/media/in/403.png"] = body(b"", 403)
    server.answers["/media/in/503.png"] = body(b"", 503)
    server.answers["/media/in/slow.png"] = drip(b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.02)
    with fetching(server, **s3(server)) as fetcher:
        assert rejected(fetcher, ref("s3://media/in/no.png")) is RejectCode.SOURCE_GONE
        for name in ("403", "503"):
            deferred(fetcher, ref(f"s3://media/in/{name}.png"), "object store")
    with fetching(server, first_total_s=0.3, **s3(server)) as fetcher:
        deferred(fetcher, ref("s3://media/in/slow.png"), "object store")


def test_a_fetcher_that_is_not_open_says_so() -> None:
    fetcher = Fetcher()
    fetcher.close()
    with pytest.raises(RuntimeError, match="not open"):
        fetcher.fetch(ref("http://example.com/a"))
