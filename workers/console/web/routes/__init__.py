"""The handlers, by page."""
