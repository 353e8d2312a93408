"""The one-machine stack as supervised child processes: what ``millrace up``, ``status`` and ``down`` do."""
