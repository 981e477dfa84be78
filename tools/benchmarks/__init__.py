"""Benchmarks of the service (`service`), its image (`image`) and rolling restarts (`restart`).

docs/benchmarks.md explains what each measures and lists the figures.
"""
