"""Commands that turn the template into a service with a name and a domain of its own."""
