"""People: one process each. The runner, the data-plane workers and the ``millrace`` command."""
