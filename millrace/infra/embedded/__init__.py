"""The one-machine stack: a real Kafka broker and the ClickHouse engine from Python packages alone."""
