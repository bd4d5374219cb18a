"""Tier 1: which crops, which backend, how they are batched, and the calibrated score."""
