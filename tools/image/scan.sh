#!/bin/sh
# Scan an image for known vulnerabilities that are high or critical and have a fix.
# Usage: scan.sh IMAGE
# The exit code is not 0 if there are any, or if no scanner is installed.
set -eu
image=$1

if command -v trivy >/dev/null; then
    exec trivy image --exit-code 1 --ignore-unfixed --severity HIGH,CRITICAL "$image"
elif command -v grype >/dev/null; then
    exec grype --fail-on high --only-fixed "$image"
fi
echo 'No scanner is installed. Install trivy (https://trivy.dev) or grype (https://github.com/anchore/grype).' >&2
exit 1
