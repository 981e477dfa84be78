#!/bin/sh
# Run the production image: run.sh NAME PORT [ENV_FILE]
# Without ENV_FILE on a PostgreSQL and a Redis of its own, which are gone afterwards.
set -eu
name=$1 port=$2 env_file=${3:-}

case $port in
'' | *[!0-9]*)
    echo "PORT must be a number, not '$port'." >&2
    exit 2
    ;;
esac
if [ -n "$env_file" ]; then
    exec docker run --rm --read-only --tmpfs /tmp --cap-drop ALL --security-opt no-new-privileges \
        --env-file "$env_file" --env PORT=8000 --publish "127.0.0.1:$port:8000" "$name:latest"
fi

stack() {
    docker compose --file docker-compose.yml "$@"
}
# In the environment and not a flag: if the file cannot be read, `down` goes by what is there,
# and would remove the volumes of the project that the caller has exported.
COMPOSE_PROJECT_NAME=$name-run
API_PORT=$port
POSTGRES_PASSWORD=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
export COMPOSE_PROJECT_NAME API_PORT POSTGRES_PASSWORD
trap 'stack down --volumes --timeout 45' EXIT
trap 'exit 130' INT TERM
stack up --no-build --detach --wait
echo "The API is on http://127.0.0.1:$port. Ctrl-C ends it and removes its data."
stack logs --follow --no-log-prefix api
