"""ClickHouse: the client, blocks of rows, tables and views as migrated, and what the archiver asks of it."""
