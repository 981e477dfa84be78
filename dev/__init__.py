"""What a developer's machine needs and the image does not."""
