"""The service beside a bare FastAPI application: throughput, start and memory. See run.py."""
