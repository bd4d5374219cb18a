"""The contracts: every record on every topic, readable alone."""
