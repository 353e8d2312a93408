"""The report of an experiment: gathered from its result and from ClickHouse at the result's offsets, told as a page, as text or as JSON."""
