"""The grounding experiment with the configured model, on a labelled dataset: `mediasieve bench grounding`."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from pipeline.detection.bundle import Bundle
from pipeline.detection.mllm.backends.base import Verifier, VerifyRequest
from pipeline.detection.mllm.chat import ServerUnavailable
from pipeline.evaluation.grounding import Grounding, measure_grounding
from pipeline.evaluation.layouts import DatasetError, open_dataset
from pipeline.evaluation.mllm_cases import CaseMaker, ask_patiently
from pipeline.settings import SettingsInvalid, load_settings
from workers.mllm.worker import make_verifier
from workers.settings import Settings


def grounding_of(root: Path, per_class: int) -> Grounding:
    """Ask the model of the settings about the first images of each class that can be shown to it.

    Args:
        root: a dataset's root.
        per_class: at most so many images of each class.

    Raises:
        SettingsInvalid: no MLLM is configured.
        DatasetError: a class has no usable image, or the server does not answer.
        BundleError: the bundle cannot be used.
    """
    settings = load_settings(Settings)
    if settings.mllm.backend == "unconfigured":
        raise SettingsInvalid("mllm.backend is unconfigured: name a model, see docs/mllm.md")
    bundle = Bundle.load(settings.bundle)
    real, synthetic = requests(bundle, root, per_class)
    verifier = make_verifier(settings.mllm, bundle)
    verifier.open()
    try:
        with ThreadPoolExecutor(settings.mllm.concurrency) as pool:
            return measure_grounding(real, synthetic, partial(_ask_all, pool, verifier))
    except ServerUnavailable as error:
        raise DatasetError(f"{root}: the MLLM server does not answer: {error}") from error
    finally:
        verifier.close()


def requests(bundle: Bundle, root: Path, per_class: int) -> tuple[list[VerifyRequest], list[VerifyRequest]]:
    """Those of photographs, and those of generated images, as stage 3 would be given them.

    Raises:
        DatasetError: a class without a usable image.
    """
    found: dict[bool, list[VerifyRequest]] = {False: [], True: []}
    with CaseMaker(bundle) as maker:
        for case in maker.cases(open_dataset(root)):
            if case is not None and len(found[case.synthetic]) < per_class:
                found[case.synthetic].append(case.request)
            if all(len(kept) == per_class for kept in found.values()):
                break
    for synthetic, kept in found.items():
        if not kept:
            kind = "generated image" if synthetic else "photograph"
            raise DatasetError(f"{root}: no {kind} with a spectrum; grounding needs both classes")
    return found[False], found[True]


def _ask_all(pool: ThreadPoolExecutor, verifier: Verifier, asked: Sequence[VerifyRequest]) -> list[float | None]:
    results = pool.map(partial(ask_patiently, verifier), asked)
    return [None if result.opinion is None else result.opinion.raw for result in results]
