# shellcheck shell=bash
# `./dev up`: the whole service in a throw-away directory, until Ctrl-C. Sourced by ./dev, which
# defines die, pg_bin, tools and build.
# shellcheck disable=SC2154

up_directory=
up_broker_pid=
up_userd_pid=

# In the order in which they depend on each other, the last started first; each step has its own deadline.
up_stop() {
    trap '' INT TERM HUP
    if [ -n "$up_userd_pid" ]; then
        echo "dev: stopping"
        up_stop_process "$up_userd_pid" 40
    fi
    if [ -n "$up_broker_pid" ]; then
        up_stop_process "$up_broker_pid" 10
    fi
    if [ -n "$up_directory" ]; then
        "$tools/apache_kafka" stop "$up_directory/kafka" || true
        "$tools/private_postgres" remove "$up_directory/postgres" || true
        rm -rf "$up_directory"
    fi
}

up_stop_process() {
    local pid=$1 tenths
    kill -TERM "$pid" 2>/dev/null || true
    for ((tenths = $2 * 10; tenths > 0; tenths--)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

up_port_if_free() {
    /usr/bin/python3 - "$1" <<'PYTHON'
import socket
import sys
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(sys.argv[1])))
        print(sys.argv[1])
    except OSError:
        print(0)
PYTHON
}

# Sets up_servers.
up_start_broker() {
    local status=0 tenths
    if [ "$1" = apache ]; then
        packages_try kafka || true
        "$tools/apache_kafka" start "$up_directory/kafka" || status=$?
        [ "$status" -eq 0 ] || die "no Apache Kafka: see above"
        up_servers=$(sed -n 's/^bootstrap.servers=//p' "$up_directory/kafka")
        return
    fi
    # Programs of ours get a session of their own: Ctrl-C is for this script, which then stops them in order.
    setsid "$build/tests/embedded_broker" </dev/null >"$up_directory/broker" 2>"$up_directory/broker.log" &
    up_broker_pid=$!
    up_servers=
    for ((tenths = 0; tenths < 100; tenths++)); do
        up_servers=$(sed -n 's/^bootstrap.servers=//p' "$up_directory/broker")
        [ -z "$up_servers" ] || return 0
        sleep 0.1
    done
    cat "$up_directory/broker.log" >&2
    die "the embedded broker does not start"
}

up_write_config() {
    (umask 077 && cat >"$up_directory/userd.conf") <<CONF
workers = $1;
run_dir = "$up_directory/run";
listeners = (
  { name = "gateway"; address = "127.0.0.1:$(up_port_if_free 50053)"; services = [ "user.User" ]; },
  { name = "post"; address = "127.0.0.1:$(up_port_if_free 50055)"; services = [ "user_post.UserPost" ]; }
);
database = { url = "$(sed -n 's/^url=//p' "$up_directory/postgres")user_db"; };
kafka = { bootstrap_servers = "$up_servers"; session_timeout_ms = 6000; };
CONF
}

# Sets up_gateway and up_post.
up_start_userd() {
    local tenths listeners=$up_directory/run/listeners
    setsid "$build/master/userd" run -c "$up_directory/userd.conf" </dev/null >"$up_directory/userd.log" 2>&1 &
    up_userd_pid=$!
    for ((tenths = 0; tenths < 300; tenths++)); do
        if [ -s "$listeners" ] || ! kill -0 "$up_userd_pid" 2>/dev/null; then
            break
        fi
        sleep 0.1
    done
    up_gateway=$(sed -n 's/^gateway //p' "$listeners" 2>/dev/null || true)
    up_post=$(sed -n 's/^post //p' "$listeners" 2>/dev/null || true)
    if [ -z "$up_gateway" ] || ! "$tools/grpc_call" "$up_gateway" health --wait 30 >/dev/null; then
        cat "$up_directory/userd.log" >&2
        die "userd does not serve"
    fi
}

up_print_endpoints() {
    cat <<TEXT

userd serves with $1 workers.
  gateway     $up_gateway    service user.User
  post        $up_post    service user_post.UserPost
  Kafka       $up_servers    topics registration, admin_delete_user, delete
  PostgreSQL  $(sed -n 's/^url=//p' "$up_directory/postgres")user_db
  log         $up_directory/userd.log

Try it in another terminal. Register a user, as the Auth Service does:
  echo '{"id": 17, "username": "trinity"}' | kcat -P -b $up_servers -t registration
Read the name back, as the Gateway does:
TEXT
    if command -v grpcurl >/dev/null; then
        echo "  grpcurl -plaintext -d '{\"id\": 17}' $up_gateway user.User/GetUser"
    else
        echo "  $tools/grpc_call $up_gateway user.User/GetUser '{\"id\": 17}'"
    fi
    printf '\nCtrl-C stops everything.\n'
}

up_run() {
    local kafka=$1 workers=$2
    trap up_stop EXIT
    # Also where we were started with `&`, and INT came to us ignored: TERM does the same.
    trap 'exit 0' INT TERM HUP
    up_directory=$(mktemp -d "${TMPDIR:-/tmp}/userd-dev.XXXXXX")
    "$tools/private_postgres" start "$up_directory/postgres" --durable
    "$(pg_bin psql)" --no-psqlrc --quiet --command 'CREATE DATABASE user_db' \
        "$(sed -n 's/^url=//p' "$up_directory/postgres")postgres"
    up_start_broker "$kafka"
    up_write_config "$workers"
    # The platform's variables would win over the file, and point elsewhere.
    unset DB_URL KAFKA_BOOTSTRAP_SERVERS
    "$build/master/userd" migrate up -c "$up_directory/userd.conf" 2>&1 | sed 's/^/dev: migrate: /'
    up_start_userd
    up_print_endpoints "$workers"
    local status=0
    wait "$up_userd_pid" || status=$?
    cat "$up_directory/userd.log" >&2
    die "userd ended by itself with status $status; its log is above"
}
