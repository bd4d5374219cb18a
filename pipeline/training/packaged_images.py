"""Generated images out of packages of workflow templates: preview pictures, each with the model that made it.

The packages `comfyui-workflow-templates-json` (index and workflows) and `comfyui-workflow-templates-media-*`
(previews, mostly 400 px lossy WebP) are read as wheels or from a directory they are installed in:

    python -m pipeline.training.packaged_images WHEEL_OR_SITE_DIR... --out DIR

writes `DIR/images/*` (the original bytes) and `DIR/manifest.jsonl`. The decoder family of an open model is read
from the VAE that its workflow loads, not guessed from the model's name.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.training.packaged_image_rules import (
    CHECKPOINT_FAMILY,
    CLOSED_FAMILY,
    DEPTH_MODEL_VAE,
    DISTILLATION,
    EXCLUDED,
    GENERATOR_BY_TEMPLATE,
    GROUPS,
    INPUT_FIRST,
    LICENCE,
    MIN_SIDE_PX,
    SOURCE,
    TAGS_WITH_OTHER_PIXELS,
    UNLISTED,
    VAE_FAMILY,
    VENDOR_NAMES,
)

Json = dict[str, Any]

_MEDIA = re.compile(r"comfyui_workflow_templates_media_\w+/templates/(?P<stem>[^/]+-\d+)\.(?:webp|png|jpe?g)$")
_JSON = "comfyui_workflow_templates_json/templates/"


class PackagesIncomplete(Exception):
    """What was given holds no index of templates or no preview images; says which."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of a package: its name within it, and how to read it."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Origin:
    """What made an image, as far as the packages say."""

    generator: str
    decoder_family: str
    lora: str
    note: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`templates`: index entry by name, with its group's title under `group`; `workflows`: JSON by name."""

    templates: Mapping[str, Json]
    workflows: Mapping[str, Member]

    def exclusion(self, stem: str, image: Image.Image) -> str | None:
        """Why this preview is not one whole image of a known generator, or None if it is."""
        template, _, position = stem.rpartition("-")
        entry = self.templates.get(template)
        known = stem in EXCLUDED or template in EXCLUDED
        tests: tuple[tuple[bool, str], ...] = (
            (getattr(image, "n_frames", 1) > 1, "animated preview"),
            (min(image.size) < MIN_SIDE_PX, f"under {MIN_SIDE_PX} px"),
            (known, EXCLUDED.get(stem) or EXCLUDED.get(template, "")),
            (entry is None and template not in UNLISTED, "template not in the index"),
        )
        for failed, reason in tests:
            if failed:
                return reason
        return _not_an_output(entry, "2" if template in INPUT_FIRST else "1", position) if entry else None

    def origin(self, stem: str) -> Origin:
        """Generator, decoder family and adapter of an image that `exclusion` lets pass.

        Raises:
            KeyError: an open model whose VAE no table of packaged_image_rules names.
        """
        template = stem.rpartition("-")[0]
        if template in UNLISTED:
            generator, family = UNLISTED[template]
            return Origin(generator, family, "unknown", f"template {template}; no longer in the index")
        entry = self.templates[template]
        generator = GENERATOR_BY_TEMPLATE.get(template) or _generator(entry)
        if entry.get("openSource") is False:
            family = CLOSED_FAMILY.get(generator, f"closed: {_provider(entry)}")
            return Origin(generator, family, "unknown", f"template {template}; closed model behind an API")
        loaders = list(_loaders(json.loads(self.workflows[template].read())))
        family, decoder = _decoder(template, loaders)
        return Origin(generator, family, _lora(loaders), f"template {template}; decoder {decoder}")


def read_packages(paths: Sequence[Path]) -> Iterator[Member]:
    """Members of wheels and of packages below site directories, in a fixed order.

    Raises:
        PackagesIncomplete: a path is neither a wheel nor a directory.
    """
    for path in paths:
        if path.is_dir():
            for file in sorted(path.glob("comfyui_workflow_templates_*/templates/*")):
                yield Member(file.relative_to(path).as_posix(), file.read_bytes)
        elif zipfile.is_zipfile(path):
            wheel = zipfile.ZipFile(path)
            for name in sorted(wheel.namelist()):
                yield Member(name, lambda wheel=wheel, name=name: wheel.read(name))  # type: ignore[misc]  # default arguments bind the loop's values
        else:
            raise PackagesIncomplete(f"{path}: neither a wheel nor a directory with installed packages")


def read_catalogue(members: Sequence[Member]) -> Catalogue:
    """Index and workflows.

    Raises:
        PackagesIncomplete: no index.json among the members.
    """
    files = {member.name[len(_JSON) :]: member for member in members if member.name.startswith(_JSON)}
    if "index.json" not in files:
        raise PackagesIncomplete("no index.json: add the package comfyui-workflow-templates-json")
    groups = json.loads(files["index.json"].read())
    templates = {entry["name"]: {**entry, "group": group["title"]} for group in groups for entry in group["templates"]}
    workflows = {name.removesuffix(".json"): member for name, member in files.items()}
    return Catalogue(templates, workflows)


def extract(paths: Sequence[Path], out: Path) -> tuple[list[Json], dict[str, str]]:
    """Writes images and manifest; returns the manifest's rows and the reason for each preview left out.

    Raises:
        PackagesIncomplete: index or previews are missing.
    """
    members = list(read_packages(paths))
    catalogue = read_catalogue(members)
    rows: list[Json] = []
    excluded: dict[str, str] = {}
    seen: set[str] = set()
    (out / "images").mkdir(parents=True, exist_ok=True)
    for member in members:
        if not (match := _MEDIA.search(member.name)):
            continue
        stem, data = match["stem"], member.read()
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in seen:
            continue
        seen.add(sha256)
        with Image.open(io.BytesIO(data)) as image:
            if reason := catalogue.exclusion(stem, image):
                excluded[stem] = reason
                continue
            path = out / "images" / Path(member.name).name
            path.write_bytes(data)
            rows.append(_row(member, path.relative_to(out), data, image, catalogue.origin(stem)))
    if not rows:
        raise PackagesIncomplete("no preview images: add the packages comfyui-workflow-templates-media-*")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (out / "manifest.jsonl").write_text(text, encoding="utf-8")
    return rows, excluded


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; prints counts by family, generator and reason of exclusion."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="+", type=Path, metavar="WHEEL_OR_SITE_DIR")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        rows, excluded = extract(options.packages, options.out)
    except PackagesIncomplete as error:
        sys.exit(str(error))
    lines = [f"{len(rows)} images, {len(excluded)} previews left out"]
    for title, values in (
        ("decoder family", [row["decoder_family"] for row in rows]),
        ("generator", [row["generator"] for row in rows]),
        ("left out", list(excluded.values())),
    ):
        lines += ["", title]
        lines += [f"{count:5d}  {value}" for value, count in Counter(values).most_common()]
    sys.stdout.write("\n".join(lines) + "\n")


def _row(member: Member, path: Path, data: bytes, image: Image.Image, origin: Origin) -> Json:
    package = member.name.partition("/")[0].replace("_", "-")
    return {
        "path": path.as_posix(),
        "label": "ai",
        "source": f"{SOURCE}: {origin.generator}",
        "package": package,
        "original_path": member.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "format": image.format,
        "width": image.width,
        "height": image.height,
        "bytes": len(data),
        "generator": origin.generator,
        "decoder_family": origin.decoder_family,
        "lora": origin.lora,
        "licence": LICENCE,
        "note": origin.note,
    }


def _not_an_output(entry: Json, output_position: str, position: str) -> str | None:
    """Why the index says that the file at `position` of a template's previews is no generator's output."""
    if entry["mediaType"] != "image" or entry["group"] not in GROUPS:
        return f"not an image generator's output (group {entry['group']})"
    if tags := TAGS_WITH_OTHER_PIXELS & set(entry.get("tags", ())):
        return f"holds pixels of its input or of an upscaler ({', '.join(sorted(tags))})"
    if "thumbnail" in {place.partition("/")[0] for place in entry.get("thumbnail", ())}:
        return "preview composed by hand (collage, inset or mask)"
    return None if position == output_position else "input side of a before/after pair"


def _provider(entry: Json) -> str:
    """Who runs a closed model: the first logo of its template, else the first name of its models."""
    provider: str | list[str] = entry["logos"][0]["provider"] if entry.get("logos") else entry["models"][0]
    return provider if isinstance(provider, str) else provider[0]


def _generator(entry: Json) -> str:
    models: list[str] = entry["models"]
    return next((model for model in models if model not in VENDOR_NAMES), models[0])


def _loaders(node: Any) -> Iterator[tuple[str, str]]:
    """(node type, its text values) of every loader and switch of a workflow, subgraphs included."""
    if isinstance(node, dict):
        kind = str(node.get("type", ""))
        if "Loader" in kind or "Switch" in kind:
            yield kind, str(node.get("widgets_values", ""))
        children: Sequence[Any] = list(node.values())
    elif isinstance(node, list):
        children = node
    else:
        return
    for child in children:
        yield from _loaders(child)


def _decoder(template: str, loaders: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """(decoder family, file it was recognised by): a VAE of its own goes before the checkpoint's."""
    for kind, table in (("VAELoader", VAE_FAMILY), ("Checkpoint", CHECKPOINT_FAMILY)):
        for loader, values in loaders:
            if kind in loader and DEPTH_MODEL_VAE not in values:
                for part, family in table.items():
                    if part in values:
                        return family, part.strip("'")
    raise KeyError(f"{template}: no known decoder among {loaders}; name it in packaged_image_rules")


def _lora(loaders: Sequence[tuple[str, str]]) -> str:
    """Whether a style or control adapter is loaded; unknown behind a switch. Step distillation does not count."""
    loras = [values for kind, values in loaders if "Lora" in kind and not DISTILLATION.search(values)]
    if not loras:
        return "no"
    return "unknown" if any("Switch" in kind for kind, _ in loaders) else "yes"


if __name__ == "__main__":
    main()
