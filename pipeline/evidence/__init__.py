"""What proves a decision later: evidence objects, their retention, and the tamper-evident log."""
