"""The kinds that `mediasieve bundle import` knows."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.training.importers.base import Importer
from pipeline.training.importers.convolutional import efficientnet_b0, resnet50
from pipeline.training.importers.transformers_based import univfd, vit_s16

IMPORTERS: Mapping[str, Importer] = {
    "efficientnet_b0": efficientnet_b0,
    "resnet50": resnet50,
    "univfd": univfd,
    "vit_s16": vit_s16,
}
