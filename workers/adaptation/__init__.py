"""What reviews teach the spectral stage: labelled set, candidates, gate, and the references that workers follow."""
