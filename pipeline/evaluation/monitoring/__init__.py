"""What the running fleet's own records say of its detectors: misses, drift, shadows, regressions."""
