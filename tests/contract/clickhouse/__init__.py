"""ClickHouse's HTTP interface as its clients use it. Runs against a URL: the embedded endpoint, or a server named in the environment."""
