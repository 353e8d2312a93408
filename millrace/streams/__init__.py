"""Verbs: what happens to an event. Pure functions and small state machines; no socket, clock or environment."""
