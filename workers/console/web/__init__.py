"""The review console's pages: server-rendered HTML over the review queue."""
