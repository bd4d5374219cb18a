"""The review console: a queue of held media, and the pages on which people decide."""
