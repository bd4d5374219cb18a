"""Which files of package archives become labelled photographs, and what happens when a package is not the known one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from pipeline.training import packaged_photographs
from pipeline.training.dataset import read_manifest, read_pixels
from pipeline.training.packaged_photograph_rules import Collection
from pipeline.training.packaged_photographs import RULES, PackageUnusable, extract, first_of_each, matches, set_digest


def picture(shade: int, size: int = 300, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size + 20), (20 * shade, 40, 90)).convert(mode).save(buffer, kind)
    return buffer.getvalue()


FILES = {
    "pkg/photos/one.jpg": picture(1),
    "pkg/photos/two.jpg": picture(2),
    "pkg/photos/again.jpg": picture(2),
    "pkg/photos/drawing.jpg": picture(3),
    "pkg/photos/small.jpg": picture(4, size=255),
    "pkg/photos/palette.png": picture(5, mode="P", kind="PNG"),
    "pkg/photos/cut-out.png": picture(6, mode="RGBA", kind="PNG"),
    "pkg/README": b"no picture",
}


def wheel(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in FILES.items():
            archive.writestr(name, data)
    return path


def tar(prefix: str = "", mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in FILES.items():
            member = tarfile.TarInfo(prefix + name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        link = tarfile.TarInfo(prefix + "pkg/photos/link.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "one.jpg"
        archive.addfile(link)
    return buffer.getvalue()


def debian(members: Sequence[tuple[str, bytes]]) -> bytes:
    """An ar archive; contents of odd length are padded (ar(5))."""
    archive = b"!<arch>\n"
    for name, data in members:
        archive += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
        )
    return archive


def rule(archive: str, digest: str = "", **fields: str) -> Collection:
    kept = [hashlib.sha256(FILES[f"pkg/photos/{name}.jpg"]).hexdigest() for name in ("one", "two")]
    return Collection(
        archive=archive,
        package="@maker/pkg",
        version="1.0",
        licence="CC0-1.0",
        note="snapshots",
        paths=("pkg/photos/*",),
        digest=digest or set_digest(kept),
        without=("pkg/photos/draw*.jpg",),
        **fields,
    )


def package(tmp_path: Path, kind: str) -> Path:
    if kind == "whl":
        return wheel(tmp_path / "pkg.whl")
    path = tmp_path / f"pkg.{kind}"
    if kind == "deb":
        odd = ("control.tar.xz", b"odd")
        path.write_bytes(debian([("debian-binary", b"2.0\n"), odd, ("data.tar.xz", tar("./", "w:xz"))]))
    else:
        path.write_bytes(tar())
    return path


@pytest.mark.parametrize("kind", ["whl", "tgz", "tar.gz", "deb"])
def test_every_kind_of_package_gives_the_same_photographs_once_and_byte_for_byte(tmp_path: Path, kind: str) -> None:
    rows = extract([package(tmp_path, kind)], tmp_path / "out", [rule(f"pkg.{kind}")])

    assert sorted(row["sha256"] for row in rows) == sorted(
        hashlib.sha256(FILES[f"pkg/photos/{name}.jpg"]).hexdigest() for name in ("one", "two")
    )
    assert {row["original_path"] for row in rows} == {"pkg/photos/one.jpg", "pkg/photos/again.jpg"}
    assert {(tmp_path / "out" / row["path"]).read_bytes() for row in rows} == {picture(1), picture(2)}


def test_the_manifest_reads_as_real_training_data_of_one_source(tmp_path: Path) -> None:
    rows = extract([wheel(tmp_path / "pkg.whl")], tmp_path / "out", [rule("pkg.whl")])

    read = read_manifest(tmp_path / "out")

    assert [row.source for row in read] == ["@maker/pkg"] * 2
    assert not any(row.synthetic or row.lora or row.generator or row.family for row in read)
    assert read_pixels(read[0]).shape == (320, 300, 3)
    assert {(row["format"], row["width"], row["height"], row["version"], row["licence"]) for row in rows} == {
        ("JPEG", 300, 320, "1.0", "CC0-1.0")
    }


def test_a_rule_may_name_another_source_and_a_content_of_two_packages_is_kept_once(tmp_path: Path) -> None:
    packages = [wheel(tmp_path / "pkg.whl"), wheel(tmp_path / "fork.whl")]

    rows = extract(packages, tmp_path / "out", [rule("pkg.whl", source="maker"), rule("fork.whl")])

    assert [row["source"] for row in rows] == ["maker", "maker"]


def test_a_package_whose_photographs_changed_is_an_error_that_names_the_version(tmp_path: Path) -> None:
    with pytest.raises(PackageUnusable, match=r"pkg\.whl: 2 photographs with digest .* fetch version 1\.0"):
        extract([wheel(tmp_path / "pkg.whl")], tmp_path / "out", [rule("pkg.whl", digest="0" * 64)])


def test_unknown_and_broken_packages_are_named(tmp_path: Path) -> None:
    with pytest.raises(PackageUnusable, match=r"other\.whl: no rule .* pkg\.whl"):
        extract([wheel(tmp_path / "other.whl")], tmp_path / "out", [rule("pkg.whl")])
    for name, data, message in (
        ("pkg.rar", b"Rar!", "not a wheel"),
        ("pkg.deb", b"<html>", "no ar archive"),
        ("pkg.deb", debian([("debian-binary", b"2.0\n")]), r"no data\.tar"),
        ("pkg.deb", debian([("data.tar.zst", b"")]), "not supported"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(PackageUnusable, match=message):
            extract([tmp_path / name], tmp_path / "out", [rule(name)])


def test_the_command_prints_counts_and_stops_at_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaged_photographs, "RULES", (rule("pkg.whl"),))
    arguments = [str(wheel(tmp_path / "pkg.whl")), "--out", str(tmp_path / "out")]

    packaged_photographs.main(arguments)
    assert "2  @maker/pkg" in capsys.readouterr().out

    with pytest.raises(SystemExit, match=r"other\.whl: no rule"):
        packaged_photographs.main([str(wheel(tmp_path / "other.whl")), *arguments[1:]])


def test_the_shipped_rules_are_complete_and_do_not_contradict_themselves() -> None:
    for collection in RULES:
        stated = dataclasses.asdict(collection)
        assert all(stated[field] for field in ("archive", "package", "version", "licence", "note", "paths"))
        assert len(bytes.fromhex(collection.digest)) == 32
        exact = [path for path in collection.paths if "*" not in path]
        assert all(matches(path, collection) for path in exact)
    assert len({collection.digest for collection in RULES}) == len(RULES)


def test_a_cap_keeps_the_lowest_digests_of_every_source():
    rows = [{"source": s, "sha256": d} for s, d in (("a", "3"), ("a", "1"), ("b", "9"), ("a", "2"))]
    assert [row["sha256"] for row in first_of_each(rows, 2)] == ["1", "9", "2"]
