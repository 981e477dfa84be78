"""Development on a machine without Docker: the API with hot reload, and its servers."""
