"""The example domain: things with a name."""
