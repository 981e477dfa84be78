#!/bin/sh
# Print the newest digests of the base images that the Dockerfile names, as its build arguments.
set -eu

python_version=$(sed -n 's/^ARG PYTHON_VERSION=//p' Dockerfile)
uv_image=$(sed -n 's/^ARG UV_IMAGE=//p' Dockerfile)

print_digest() { # ARGUMENT IMAGE
    description=$(docker buildx imagetools inspect "$2")
    digest=$(echo "$description" | sed -n 's/^Digest: *//p')
    echo "--build-arg $1=$digest  # $2"
}

print_digest PYTHON_DIGEST "python:$python_version-slim-trixie"
print_digest UV_DIGEST "$uv_image"
