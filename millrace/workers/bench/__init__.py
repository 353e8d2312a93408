"""Benchmarks: what millrace costs beside a bare loop, measured in one run on one broker."""
