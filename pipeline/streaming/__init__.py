"""Records from a broker through a stage and back, exactly once from topic to topic."""
