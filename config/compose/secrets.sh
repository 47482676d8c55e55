#!/bin/sh
# Generates the passwords of docker-compose.rabbitmq.yml and docker-compose.redis.yml, once:
#
#     sh config/compose/secrets.sh
#
# There are no default passwords. Run again, it adds what is missing and changes nothing else. The files go
# to config/compose/secrets, or to the folder that BROKER_PROFILES_SECRETS names; .env tells docker compose
# which. git ignores both.
#
# Other users of this machine are kept out by the folder (700). The files themselves can be read (444), for
# docker compose mounts them as they are and each container reads them under a user id of its own.
set -eu
umask 077

root=$(cd "$(dirname "$0")/../.." && pwd)
variable=BROKER_PROFILES_SECRETS

if [ -n "${BROKER_PROFILES_SECRETS:-}" ]; then
    folder=$BROKER_PROFILES_SECRETS
else
    cd "$root"
    if ! grep -qs "^$variable=." .env; then
        # A last line that somebody left without its end must not swallow ours.
        if [ -s .env ] && [ -n "$(tail -c 1 .env)" ]; then echo >>.env; fi
        echo "$variable=./config/compose/secrets" >>.env
    fi
    chmod 600 .env
    folder=$(sed -n "s/^$variable=//p" .env | tail -n 1)
fi
mkdir -p "$folder"
chmod 700 "$folder"

put() { # put NAME TEXT: whole or not at all, and not again where it is the same
    if [ "$(cat "$folder/$1" 2>/dev/null)" != "$2" ]; then
        printf '%s\n' "$2" >"$folder/.new"
        chmod 444 "$folder/.new"
        mv -f "$folder/.new" "$folder/$1"
    fi
}

password() { # password NAME: the one that is there, or a new one of 192 bits
    if [ ! -s "$folder/$1" ]; then
        put "$1" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')"
    fi
    cat "$folder/$1"
}

rabbitmq=$(password rabbitmq_password)
postgresql=$(password postgresql_password)
redis=$(password redis_password)
flower=$(password flower_password)

# What workers read, by RABBITMQ_URL_FILE and its like.
put rabbitmq_url "amqp://celery:$rabbitmq@rabbitmq:5672//"
put database_url "postgresql://celery:$postgresql@postgresql:5432/celery"
put redis_url "redis://:$redis@redis:6379/0"
# What RabbitMQ, Redis and Flower read, each in the form of its own configuration.
put rabbitmq.conf "default_user = celery
default_pass = $rabbitmq"
put redis.conf "requirepass $redis"
put flower.py "basic_auth = ['celery:$flower']"

echo "The passwords are in $folder. Flower's user is celery, its password is in flower_password."
