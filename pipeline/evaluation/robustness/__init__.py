"""What is done to a labelled image before it is scored again: degradations, deliveries, hard photographs, attacks."""
