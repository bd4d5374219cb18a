"""The audit worker: every decision, review, reference update and erasure becomes a leaf of a tamper-evident log."""
