"""Commands that turn the template into a service with its own name and domain."""
