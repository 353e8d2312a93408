"""What an experiment's moments say: estimates, intervals, tests. Pure functions of numbers, each with its source."""
