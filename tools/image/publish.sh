#!/bin/sh
# Push the image with its attestations: publish.sh REGISTRY/NAME:TAG [FLAGS of docker buildx build]
set -eu
tag=$1
shift

refuse() {
    echo "Not published: $1" >&2
    exit 1
}
case $tag in
/*) refuse 'say where to: make docker-publish REGISTRY=registry.example.com/team' ;;
*-dirty | *-unknown) refuse 'commit first, so that the tag names what is in the image' ;;
esac
if docker buildx imagetools inspect "$tag" >/dev/null 2>&1; then
    refuse "$tag is there already, and a tag is never used twice"
fi
docker buildx build --push --tag "$tag" --sbom=true --provenance=mode=max --metadata-file dist/published.json "$@" .
digest=$(sed -n 's/^  "containerimage\.digest": "\(.*\)".*/\1/p' dist/published.json)
echo "${tag%:*}@$digest" >dist/published.txt # what is signed: a tag can be moved
echo "Published $tag, which is $(cat dist/published.txt)"
