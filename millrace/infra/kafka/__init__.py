"""Kafka: clients, provisioning, error triage and the transactional producer."""
