"""Measurements, beside a bare FastAPI application (run.py), of the image and of restarts."""
