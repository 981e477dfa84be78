#!/bin/sh
# Build the image and push it with its attestations (SBOM and provenance).
# Usage: publish.sh REGISTRY/NAME:TAG [FLAGS of docker buildx build]
# It writes REGISTRY/NAME@DIGEST to dist/published.txt.
set -eu
image=$1
shift

fail() {
    echo "Not published: $1" >&2
    exit 1
}

case $image in
/*) fail 'name the registry: make docker-publish REGISTRY=registry.example.com/team' ;;
*-dirty | *-unknown) fail 'commit your changes first, so that the tag identifies the source' ;;
esac
if docker buildx imagetools inspect "$image" >/dev/null 2>&1; then
    fail "$image already exists, and a tag is never reused"
fi

docker buildx build \
    --push \
    --tag "$image" \
    --sbom=true \
    --provenance=mode=max \
    --metadata-file dist/published.json \
    "$@" .

digest=$(sed -n 's/^  "containerimage\.digest": "\(.*\)".*/\1/p' dist/published.json)
# The digest is what gets signed: a tag can be moved to another image later.
echo "${image%:*}@$digest" >dist/published.txt
echo "Published $image as $(cat dist/published.txt)"
