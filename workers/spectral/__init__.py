"""The spectral stage and its worker."""
