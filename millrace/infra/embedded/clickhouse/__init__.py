"""ClickHouse's HTTP interface over the embedded engine (chdb), in one process that owns the data folder."""

from millrace.infra.embedded.clickhouse.run import serve

__all__ = ["serve"]
