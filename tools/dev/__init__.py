"""What a developer's machine needs, and the image that ships does not."""
