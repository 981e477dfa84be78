"""What turns the template into a service of somebody's own."""
