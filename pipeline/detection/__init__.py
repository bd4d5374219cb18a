"""The three tiers of detection and the bundle that defines a verdict."""
