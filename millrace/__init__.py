"""millrace: model decisions as a stream, on Kafka."""

__version__ = "0.1.0"
