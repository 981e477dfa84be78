"""The schema's revisions, numbered `0001`, `0002`, … so that they can be compared."""

from importlib.resources import files


def newest_revision() -> str:
    """The revision that this release needs, read from the names of the files in `versions/`."""
    names = (file.name for file in (files(__name__) / "versions").iterdir())
    return max(name.partition("_")[0] for name in names if name[:1].isdigit())
