"""What a monitoring command says with its exit code."""

from __future__ import annotations

EXIT_FOUND = 3
"""A regression or a drift: the measurement is made, and running it again finds it again. Kafka that is away is 1."""
