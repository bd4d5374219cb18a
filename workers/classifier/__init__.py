"""The classifier stage and its worker."""
