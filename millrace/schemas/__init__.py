"""Nouns: events, topics, tables, plans, limits and errors. Imports the codec library alone."""
