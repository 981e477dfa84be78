"""Throughput and latency by the number of clients, up to many more than the pool can serve."""
