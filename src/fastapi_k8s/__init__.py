"""A FastAPI service on PostgreSQL and Redis."""

NAME = __name__.replace("_", "-")  # of the distribution, the command and the service
