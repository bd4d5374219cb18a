"""The review queue without a web page: claims, verdicts, appeals, and what of them goes to Kafka."""
