"""A small FastAPI service on PostgreSQL and Redis."""

NAME = "fastapi-k8s"
"""The name of the distribution, of the command line program and of the service."""
