"""The example domain: things with a name."""

from .routes import router

__all__ = ["router"]
