"""The revisions of the schema, numbered `0001`, `0002`, and so on, so that they can be compared."""

from importlib.resources import files


def newest_revision() -> str:
    """The revision that this release needs, from the names of the files in `versions/`."""
    versions = files(__name__) / "versions"
    revisions = []
    for file in versions.iterdir():
        number, _, _ = file.name.partition("_")
        if number.isdigit():
            revisions.append(number)
    return max(revisions)
