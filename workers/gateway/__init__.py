"""The ingest gateway: media in over HTTP, decisions out, for producers that do not speak Kafka."""
