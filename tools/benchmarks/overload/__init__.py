"""How throughput and latency change with the number of clients, up to far more than fit."""
