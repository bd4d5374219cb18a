"""A bundle over a dataset: every image through the stages that see pixels, one score row for each variant of it.

Images go to processes; this process alone writes. Rows are appended in the dataset's order, so a run that was
stopped goes on where the file ends, loses no more than the images in flight, and needs no memory of what it did.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import cv2

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.classifier.batching import BatchingSettings
from pipeline.detection.classifier.classifier import Classifier
from pipeline.detection.classifier.preprocess import crops
from pipeline.detection.policy import codec_of
from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.evaluation.layouts import Dataset, DatasetError, read_bytes
from pipeline.evaluation.leakage import TrainingImages
from pipeline.evaluation.perceptual_hash import dhash256
from pipeline.evaluation.process_map import Crashed, ordered_map
from pipeline.evaluation.robustness.suites import SUITES, applies
from pipeline.evaluation.robustness.transform import NotTransformable, Variant
from pipeline.evaluation.sample import Sample
from pipeline.evaluation.score_row import ScoreRow, ScoresError, Status
from pipeline.evaluation.scoring_files import (
    OVERLAP_FILE,
    PART_FILE,
    SCORES_FILE,
    TIMES_FILE,
    Progress,
    check_same_run,
    former_progress,
    remaining,
)
from pipeline.media.decode import DecodedImage, DecodeLimits, decode_image
from pipeline.media.errors import MediaError

AS_DELIVERED = "as delivered"
_FLUSH_EVERY = 64


@dataclass(frozen=True, slots=True)
class Scored:
    """What one image gave. `overlap`: which training image it is, empty for none."""

    rows: tuple[ScoreRow, ...]
    times_ms: dict[str, float] = field(default_factory=dict)
    overlap: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """Everything a process needs to score images; picklable."""

    bundle_path: Path | None = None
    variants: tuple[Variant, ...] = ()
    suites: tuple[str, ...] = ()
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    allow_training_images: bool = False

    def variants_of(self, *, synthetic: bool) -> tuple[Variant, ...]:
        """What is scored beside an image of this class: `variants`, then what the suites have for it."""
        suites = [SUITES[name] for name in self.suites if applies(name, synthetic)]
        return (*self.variants, *(variant for suite in suites for variant in suite))

    def names(self, *, synthetic: bool) -> tuple[str, ...]:
        """Of the rows of one image, in their order."""
        return (AS_DELIVERED, *(variant.name for variant in self.variants_of(synthetic=synthetic)))


class Scorer:
    """Holds one bundle's models, in the process that uses them; called with a sample."""

    def __init__(self, job: ScoringJob) -> None:
        """Loads and opens the models.

        Raises:
            BundleError: it must not be used, or has no spectral reference.
        """
        cv2.setNumThreads(1)
        self._job = job
        self._bundle = Bundle.load(job.bundle_path)
        entry = self._bundle.manifest.spectral
        if entry is None:
            raise BundleError(f"{self._bundle.directory}: has no spectral reference; train one, then `bundle seal`")
        self._analyser = SpectralAnalyser(self._bundle.path(entry.file))
        self._classifier = Classifier(self._bundle, batching=BatchingSettings(max_wait_ms=0.0))
        self._classifier.open()
        self._overlap = overlap_check(self._bundle)

    def __call__(self, sample: Sample) -> Scored:
        """Score one image and its variants."""
        try:
            data = read_bytes(sample)
        except DatasetError as error:
            return Scored((), error=str(error))
        times: dict[str, float] = {}
        try:
            image = _timed(times, "decode", partial(decode_image, data, self._job.limits))
        except MediaError as error:
            names = self._job.names(synthetic=sample.synthetic)
            return Scored(failed_rows(sample, names, f"{error.code}: {error.detail}", len(data)))
        overlap = self._overlap(image) if self._overlap else ""
        if overlap and not self._job.allow_training_images:
            return Scored((), overlap=overlap)
        rows = [self._row(sample, AS_DELIVERED, image, times)]
        variants = self._job.variants_of(synthetic=sample.synthetic)
        rows += [self._variant_row(sample, variant, data) for variant in variants]
        return Scored(tuple(rows), times, overlap)

    def _variant_row(self, sample: Sample, variant: Variant, data: bytes) -> ScoreRow:
        try:
            copy = decode_image(variant.transform(data, sample.key), self._job.limits)
        except NotTransformable as error:
            detail = {"status": Status.NOT_APPLICABLE, "detail": str(error)[:512]}
            return labelled_row(sample, variant.name).model_copy(update=detail)
        except MediaError as error:
            return failed_rows(sample, (variant.name,), f"{error.code}: {error.detail}")[0]
        return self._row(sample, variant.name, copy, {})

    def _row(self, sample: Sample, variant: str, image: DecodedImage, times: dict[str, float]) -> ScoreRow:
        spec = self._classifier.crop_spec
        s1 = _timed(times, "classifier", lambda: self._classifier.score(crops(image.rgb, spec)))
        analysis = _timed(times, "spectral", lambda: self._analyser.analyse(image))
        # A second time and not timed, so that the stage's cost stays that of the fleet, which asks for no copy.
        delivered = self._analyser.analyse(image, delivery=True) if variant == AS_DELIVERED else analysis
        status = Status.SCORED if analysis.score is not None else Status.NOT_APPLICABLE
        facts = image.facts
        return labelled_row(sample, variant).model_copy(
            update={
                "status": status,
                "sha256": facts.sha256,
                "format": facts.format,
                "stratum": analysis.stratum,
                "jpeg_quality": facts.jpeg_quality,
                "width": facts.width,
                "height": facts.height,
                "size_bytes": facts.size_bytes,
                "classifier": s1,
                "spectral": analysis.score,
                "fused": self._bundle.policy.fuse12(s1, analysis.score, codec_of(analysis.stratum)),
                "p_value": analysis.p_value,
                "delivery_sensitive": bool(delivered.delivery_sensitive),
                "detail": analysis.not_applicable or "",
            }
        )


def score_dataset(
    job: ScoringJob,
    dataset: Dataset,
    out_dir: Path,
    *,
    processes: int = 1,
    timeout_s: float = 120.0,
    on_progress: Callable[[Progress], None] | None = None,
) -> Path:
    """Score every image of the dataset and write `scores.jsonl`; a run that was stopped goes on.

    Args:
        job: bundle, variants and limits.
        dataset: gives the same images in the same order each time.
        out_dir: of this run alone; made when absent.
        processes: at work at once, one thread each.
        timeout_s: for one image with its variants; what takes longer is a failed row.
        on_progress: called after every image.

    Returns:
        The finished scores file.

    Raises:
        ScoresError: `out_dir` holds another run, or every image was refused.
        DatasetError: an image that the dataset lists cannot be read.
        HandlerFailed: the bundle cannot be used, or a bug.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    check_same_run(out_dir, run_facts(job, dataset))
    finished, part = out_dir / SCORES_FILE, out_dir / PART_FILE
    if finished.exists():
        return finished
    progress = former_progress(out_dir)
    rows_of = {synthetic: len(job.names(synthetic=synthetic)) for synthetic in (False, True)}
    samples = remaining(dataset.samples(), part, out_dir / OVERLAP_FILE, rows_of, progress)
    try:
        with part.open("a", encoding="utf-8") as rows, (out_dir / OVERLAP_FILE).open("a", encoding="utf-8") as overlaps:
            results = ordered_map(partial(Scorer, job), samples, processes=processes, timeout_s=timeout_s)
            for sample, reply in results:
                scored = _crashed(job, sample, reply) if isinstance(reply, Crashed) else reply
                _write(sample, scored, rows, overlaps)
                _count(progress, scored)
                if progress.images % _FLUSH_EVERY == 0:
                    rows.flush()
                if on_progress:
                    on_progress(progress)
    finally:
        (out_dir / TIMES_FILE).write_text(json.dumps(asdict(progress)), encoding="utf-8")
    if progress.refused == progress.images:
        raise ScoresError(
            f"{dataset.root}: all {progress.images} images are in the bundle's training list; evaluate on others,"
            " or allow training images, which the report then says"
        )
    part.rename(finished)
    return finished


def run_facts(job: ScoringJob, dataset: Dataset) -> dict[str, Any]:
    """What must be alike for rows to lie in one file."""
    bundle = Bundle.load(job.bundle_path)
    return {
        "bundle": bundle.version,
        "files": {name: entry.sha256 for name, entry in bundle.manifest.files.items()},
        "dataset": str(dataset.root),
        "layout": dataset.layout,
        "split": dataset.options.split,
        "reals": str(dataset.options.reals) if dataset.options.reals else None,
        "variants": [list(job.names(synthetic=synthetic)) for synthetic in (False, True)],
        "allow_training_images": job.allow_training_images,
    }


def labelled_row(sample: Sample, variant: str) -> ScoreRow:
    """What the dataset says of the image; no scores yet."""
    return ScoreRow(
        key=sample.key,
        synthetic=sample.synthetic,
        source=sample.source,
        group=sample.group,
        generator=sample.generator,
        base=sample.base,
        adapter_type=sample.adapter_type,
        rank=sample.rank,
        paired_with=sample.paired_with,
        variant=variant,
    )


def failed_rows(sample: Sample, variants: Sequence[str], detail: str, size_bytes: int = 0) -> tuple[ScoreRow, ...]:
    """Rows of an image that could not be analysed: it stays in every denominator."""
    update = {"status": Status.FAILED, "detail": detail[:512], "size_bytes": size_bytes, "sha256": sample.sha256}
    return tuple(labelled_row(sample, name).model_copy(update=update) for name in variants)


def overlap_check(bundle: Bundle) -> Callable[[DecodedImage], str] | None:
    """Names the training image that an image is, or a near copy of; None for a bundle without a training list."""
    name = getattr(bundle.manifest, "training", None)
    if name is None:
        return None
    images = TrainingImages.load(bundle.path(name))
    return lambda image: images.overlap(image.facts.sha256, dhash256(image.rgb)) or ""


def _crashed(job: ScoringJob, sample: Sample, reply: Crashed) -> Scored:
    return Scored(failed_rows(sample, job.names(synthetic=sample.synthetic), reply.detail))


def _timed(times: dict[str, float], stage: str, work: Callable[[], Any]) -> Any:
    start_s = time.perf_counter()
    result = work()
    times[stage] = (time.perf_counter() - start_s) * 1e3
    return result


def _write(sample: Sample, scored: Scored, rows: IO[str], overlaps: IO[str]) -> None:
    if scored.error:
        raise DatasetError(scored.error)
    rows.writelines(row.model_dump_json() + "\n" for row in scored.rows)
    if scored.overlap:
        rows.flush()  # a refusal in the file says that all before it is in the rows' file
        refused = not scored.rows
        overlaps.write(json.dumps({"key": sample.key, "training": scored.overlap, "refused": refused}) + "\n")
        overlaps.flush()


def _count(progress: Progress, scored: Scored) -> None:
    progress.images += 1
    progress.refused += not scored.rows
    progress.failed += bool(scored.rows) and scored.rows[0].status is Status.FAILED
    progress.add_times(scored.times_ms)
