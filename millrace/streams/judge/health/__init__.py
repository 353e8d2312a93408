"""What speaks against trusting an experiment: each check with a severity, a cause and the numbers that led there."""
