"""Labelled images as stage 3 meets them: scored by the stages before it, with the request that a verifier is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import cv2

from pipeline.detection.bundle import Bundle, BundleError
from pipeline.detection.classifier.batching import BatchingSettings
from pipeline.detection.classifier.classifier import Classifier
from pipeline.detection.classifier.preprocess import crops
from pipeline.detection.mllm.backends.base import Verifier, VerifyRequest, VerifyResult
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.detection.policy import codec_of
from pipeline.detection.spectral.analyser import SpectralAnalyser
from pipeline.detection.spectral.panel import render_panel
from pipeline.evaluation.layouts import Dataset, read_bytes
from pipeline.evaluation.sample import Sample
from pipeline.media.decode import DecodeLimits, decode_image
from pipeline.media.errors import MediaError

TOP_FEATURES = 8
"""As many as the spectral stage hands on."""

_TRIES = 5
_WAIT_S, _LONGEST_WAIT_S = 5.0, 60.0


@dataclass(frozen=True, slots=True)
class Case:
    """One labelled image. `p12` is the fused score; `arrives`: the policy sends it to stage 3."""

    key: str
    synthetic: bool
    source: str
    p12: float
    arrives: bool
    request: VerifyRequest


class CaseMaker:
    """A bundle's first two stages; a context manager that holds the models."""

    def __init__(self, bundle: Bundle) -> None:
        """Loads the models.

        Raises:
            BundleError: the bundle has no spectral reference.
        """
        entry = bundle.manifest.spectral
        if entry is None:
            raise BundleError(f"{bundle.directory}: has no spectral reference; train one, then `bundle seal`")
        self._policy = bundle.policy
        self._analyser = SpectralAnalyser(bundle.path(entry.file))
        self._classifier = Classifier(bundle, batching=BatchingSettings(max_wait_ms=0.0))

    def __enter__(self) -> Self:
        cv2.setNumThreads(1)
        self._classifier.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._classifier.close()

    def cases(self, dataset: Dataset) -> Iterator[Case | None]:
        """One for each image, in the dataset's order; None where it cannot be decoded or has no spectrum to show.

        Raises:
            DatasetError: see `Dataset.samples`.
        """
        for sample in dataset.samples():
            yield self.case(sample, read_bytes(sample))

    def case(self, sample: Sample, data: bytes) -> Case | None:
        """See `cases`."""
        try:
            image = decode_image(data, DecodeLimits())
        except MediaError:
            return None
        s1 = self._classifier.score(crops(image.rgb, self._classifier.crop_spec))
        analysis = self._analyser.analyse(image)
        if analysis.score is None:
            return None
        policy, codec = self._policy, codec_of(analysis.stratum)
        stage2 = policy.stage2_score(s1, analysis.score, codec)
        request = VerifyRequest(
            original=data,
            original_content_type=f"image/{image.facts.format}",
            panel_png=render_panel(image, analysis),
            features=analysis.top_features(TOP_FEATURES),
            stratum=analysis.stratum,
            scores=(),
            width=image.facts.width,
            height=image.facts.height,
        )
        arrives = not policy.stage1_exit(s1) and not policy.stage2_exit(stage2)
        p12 = policy.fuse12(s1, analysis.score, codec)
        return Case(sample.key, sample.synthetic, sample.source, p12, arrives, request)


def ask_patiently(
    verifier: Verifier, request: VerifyRequest, sleep: Callable[[float], None] = time.sleep
) -> VerifyResult:
    """A verification that waits as long as the server, or a limit before it, asks for, or a while; five times at most.

    Raises:
        ServerUnavailable: it still takes no work.
    """
    for left in reversed(range(_TRIES)):
        try:
            return verifier.verify(request)
        except ServerUnavailable as error:
            if not left:
                raise
            sleep(min(error.retry_after_s or _WAIT_S, _LONGEST_WAIT_S))
    raise AssertionError("the last try returns or raises")
