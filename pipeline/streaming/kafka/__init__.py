"""Kafka: the only package that imports `confluent_kafka`, and the embedded broker."""
