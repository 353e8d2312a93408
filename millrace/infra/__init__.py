"""Places: Kafka, ClickHouse, model files, settings, telemetry and the one-machine stack."""

from millrace.infra.settings import keep_to_itself

keep_to_itself()
