"""The runbooks of docs/operations.md, each on a real Kafka with real workers: `python -m tests.runbooks NAME`."""
