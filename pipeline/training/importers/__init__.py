"""Checkpoints of published detectors as bundles. Each importer reads tensors only and names what does not fit."""
