"""The batch answer: SQL that computes an experiment's numbers again from the records in ClickHouse, at named offsets."""
