"""Media at the edge: fetch it, recognise it, decode it, keep it."""
