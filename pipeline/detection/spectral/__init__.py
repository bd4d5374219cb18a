"""Spectral evidence: what the frequencies of an image say, against photographs of the same stratum."""
