"""The bytes of a sample, wherever they lie."""

from __future__ import annotations

import hashlib

from pipeline.evaluation.layouts import parquet_rows
from pipeline.evaluation.layouts.base import DatasetError
from pipeline.evaluation.sample import Sample


def read_bytes(sample: Sample) -> bytes:
    """The image file's bytes, from disk or from a parquet row. Rows read in order cost one pass over the file.

    Raises:
        DatasetError: missing, unreadable, or not the bytes whose sha256 the dataset states.
    """
    data = _from_disk(sample) if sample.row is None else parquet_rows.read_image(sample.path, sample.row, sample.column)
    if sample.sha256 and hashlib.sha256(data).hexdigest() != sample.sha256:
        raise DatasetError(f"{sample.path}: sha256 is not the manifest's; fetch the file again or correct the manifest")
    return data


def _from_disk(sample: Sample) -> bytes:
    try:
        return sample.path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{sample.path}: {error.strerror}; the dataset lists it as {sample.key}") from error
