"""The commands of ``millrace``, a module for each group: ``register(app)`` adds its commands to the application."""
