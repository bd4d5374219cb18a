"""What a fault test sends: small images for all three stages, and what must not become a decision."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from PIL import Image

from pipeline.detection.bundle import DEFAULT_BUNDLE, Bundle, seal
from pipeline.detection.policy import DEFAULT_THRESHOLDS, Fusion, Policy
from pipeline.streaming.codec import MEDIA_ID_HEADER
from pipeline.streaming.kafka.client import RecordWriter
from pipeline.streaming.kafka.config import KafkaSettings
from pipeline.streaming.transport import OutRecord
from schemas.topics import Topic
from workers.inspection import Inspector
from workers.settings import Settings

FILES = 50
BROKEN = ("truncated.jpg", "text.png")
SHARE_OUT_1, SHARE_OUT_2 = 0.4, 0.5
"""Quantiles at which T1 and T2 are put, so that every stage decides a good part."""


def make_media(directory: Path) -> list[Path]:
    """FILES images of 128 px (every eighth of 64 px, too small for stage 2), of three spectra, half upsampled."""
    rng = np.random.default_rng(20_261)
    paths = []
    for number in range(FILES):
        size = 64 if number % 8 == 7 else 128
        rows, columns = np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]
        falloff = np.maximum(np.hypot(rows, columns), 1 / size)[..., None] ** (0.6, 1.0, 1.4)[number % 3]
        noise = np.fft.rfft2(rng.standard_normal((size, size, 3)), axes=(0, 1))
        x = np.fft.irfft2(noise / falloff, s=(size, size), axes=(0, 1))
        if number % 2:
            x = x[: size // 2, : size // 2].repeat(2, axis=0).repeat(2, axis=1)
        image = Image.fromarray((127.5 * (1 + np.tanh(0.8 * x / x.std()))).astype(np.uint8))
        path = directory / f"{number:02d}.{('png', 'jpg')[number % 4 < 2]}"
        image.save(path)
        paths.append(path)
    (directory / BROKEN[0]).write_bytes(paths[0].read_bytes()[:900])
    (directory / BROKEN[1]).write_bytes(b"no image at all\n")
    return paths


def make_bundle(directory: Path, media: Sequence[Path], panels: Path) -> Path:
    """The shipped bundle with thresholds in the middle of these images' scores."""
    shutil.copytree(DEFAULT_BUNDLE, directory)
    inspector = Inspector(Settings(), panels, all_stages=True)
    inspector.open()
    found = [inspector.inspect(path) for path in media]
    inspector.close()
    first = [i.classifier for i in found if i.classifier is not None]
    second = [i.analysis.score for i in found if i.analysis is not None and i.analysis.score is not None]
    manifest, t1 = Bundle.load(directory).manifest, float(np.quantile(first, SHARE_OUT_1))
    cuts = {"t1": t1, "priority": max(t1, 0.8), "t2": float(np.quantile(second, SHARE_OUT_2))}
    thresholds = DEFAULT_THRESHOLDS.model_copy(update=cuts)
    policy = Policy(version="fault-test", thresholds=thresholds, fusion=Fusion(prior=manifest.prior))
    (directory / manifest.policy).write_text(policy.model_dump_json())
    seal(directory)
    return directory


@dataclass(frozen=True, slots=True)
class Sends:
    """Records for the ingest topic, in order, and how many answers each media id must get."""

    records: tuple[OutRecord, ...]
    expected: Counter[str]


def make_sends(topic: str, media: Sequence[Path], count: int, rng: random.Random) -> Sends:
    """`count` records: 5 % a second send of the same reference, 2 % garbage, 1 % missing files, 1 % broken images."""
    directory = media[0].parent
    makers: tuple[tuple[float, Callable[[str], tuple[str, OutRecord]]], ...] = (
        (0.02, lambda name: _garbage(topic, name, rng)),
        (0.01, lambda name: reference(topic, f"gone-{name}", directory / f"gone-{name}.jpg")),
        (0.01, lambda name: reference(topic, f"broken-{name}", directory / rng.choice(BROKEN))),
    )
    twice = count // 20
    chosen = [make(f"{i:05d}") for share, make in makers for i in range(round(share * count))]
    while len(chosen) < count - twice:
        chosen.append(reference(topic, f"media-{len(chosen):05d}", rng.choice(media)))
    chosen += rng.sample([c for c in chosen if c[0].startswith("media-")], twice)
    rng.shuffle(chosen)
    return Sends(tuple(record for _, record in chosen), Counter(name for name, _ in chosen))


def named_sends(topic: str, names: Sequence[str], path: Path = Path("/nowhere")) -> Sends:
    """References by media id, all to one file; the direct stage looks at none."""
    made = [reference(topic, name, path) for name in names]
    return Sends(tuple(record for _, record in made), Counter(names))


def publish(kafka: KafkaSettings, records: Sequence[OutRecord]) -> None:
    """Write them all; raises unless the broker has them."""
    writer = RecordWriter(kafka)
    for record in records:
        writer.write(record)
    writer.flush()


def reference(topic: str, media_id: str, path: Path) -> tuple[str, OutRecord]:
    """A media id with the record that sends it."""
    value = orjson.dumps({"uri": path.as_uri(), "media_id": media_id, "source": "fault-test"})
    return media_id, OutRecord(topic, media_id.encode(), value)


def _garbage(topic: str, name: str, rng: random.Random) -> tuple[str, OutRecord]:
    """No reference can be read out of it, so the media id travels in the header that replays use."""
    media_id = f"garbage-{name}"
    value = rng.choice((b"{", b"\xff\xfe", b"[]", b'{"uri": 1}', b'{"media_id": "x"}'))
    return media_id, OutRecord(topic, media_id.encode(), value, ((MEDIA_ID_HEADER, media_id.encode()),))


def environment(kafka: KafkaSettings, home: Path, media: Path, bundle: Path | None) -> dict[str, str]:
    """MEDIASIEVE_* of a worker on two shared cores."""
    values = {
        "MEDIASIEVE_KAFKA__BOOTSTRAP": kafka.bootstrap,
        "MEDIASIEVE_KAFKA__TOPIC_PREFIX": kafka.topic_prefix,
        "MEDIASIEVE_KAFKA__GROUP_PROTOCOL": kafka.group_protocol.value,
        "MEDIASIEVE_STORE__URL": (home / "store").as_uri(),
        "MEDIASIEVE_CLASSIFIER__FETCH__FILE_ROOTS": orjson.dumps([str(media)]).decode(),
        "MEDIASIEVE_CLASSIFIER__SANDBOX__WORKERS": "1",
        "MEDIASIEVE_CLASSIFIER__SLOTS": "8",
        "MEDIASIEVE_SPECTRAL__PROCESSES": "1",
        "MEDIASIEVE_LOG__LEVEL": "info",
        "OMP_NUM_THREADS": "1",
    }
    return values | ({"MEDIASIEVE_BUNDLE": str(bundle)} if bundle else {})


def ingest(kafka: KafkaSettings) -> str:
    """Full name of the ingest topic."""
    return f"{kafka.topic_prefix}.{Topic.INGEST}"
