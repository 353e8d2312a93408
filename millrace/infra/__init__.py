"""Places: Kafka, ClickHouse, model files, settings, telemetry and the one-machine stack."""
