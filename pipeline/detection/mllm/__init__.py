"""Verification by a multimodal language model: original and spectral panel in, forensic report out."""
