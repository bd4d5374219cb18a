"""Datasets of labelled images as they are published, read one image at a time.

dataset = open_dataset(Path("GenImage"), split="val")
for sample in dataset.samples(): data = read_bytes(sample)
"""

from pipeline.evaluation.layouts.base import Dataset, DatasetError, Layout, Options
from pipeline.evaluation.layouts.read import read_bytes
from pipeline.evaluation.layouts.registry import LAYOUTS, detect, open_dataset

__all__ = ["LAYOUTS", "Dataset", "DatasetError", "Layout", "Options", "detect", "open_dataset", "read_bytes"]
