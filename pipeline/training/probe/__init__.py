"""Linear probes on frozen features: the experiments behind the shipped classifier, and its recipe."""
