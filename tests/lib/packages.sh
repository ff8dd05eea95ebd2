# shellcheck shell=bash
# What ./dev needs of Debian 12, and how it gets there. Sourced by ./dev.

# package | what proves that it is here (a program in PATH, or a file) | what needs it
readonly package_table="
build-essential          | cc                                              | build
clang                    | clang                                           | build
cmake                    | cmake                                           | build
ninja-build              | ninja                                           | build
pkg-config               | pkg-config                                      | build
protobuf-compiler        | protoc                                          | build
protobuf-c-compiler      | protoc-c                                        | build
libprotobuf-c-dev        | /usr/include/protobuf-c/protobuf-c.h            | build
libgrpc-dev              | /usr/include/grpc/grpc.h                        | build
libpq-dev                | /usr/include/postgresql/libpq-fe.h              | build
librdkafka-dev           | /usr/include/librdkafka/rdkafka.h               | build
libsystemd-dev           | /usr/include/systemd/sd-event.h                 | build
libconfig-dev            | /usr/include/libconfig.h                        | build
libjansson-dev           | /usr/include/jansson.h                          | build
libmicrohttpd-dev        | /usr/include/microhttpd.h                       | build
libunistring-dev         | /usr/include/uninorm.h                          | build
zlib1g-dev               | /usr/include/zlib.h                             | build
libcriterion-dev         | /usr/include/criterion/criterion.h              | build
libnghttp2-dev           | /usr/include/nghttp2/nghttp2.h                  | build
python3                  | /usr/bin/python3                                | build
postgresql-15            | /usr/lib/postgresql/15/bin/initdb               | run
postgresql-client-15     | /usr/lib/postgresql/15/bin/psql                 | run
pgbouncer                | /usr/sbin/pgbouncer                             | run
kcat                     | kcat                                            | run
python3-grpcio           | /usr/lib/python3/dist-packages/grpc/__init__.py | run
python3-protobuf         | /usr/lib/python3/dist-packages/google/protobuf/__init__.py | run
python3-kafka            | /usr/lib/python3/dist-packages/kafka/__init__.py | run
python3-psycopg2         | /usr/lib/python3/dist-packages/psycopg2/__init__.py | run
gnuplot-nox              | gnuplot                                         | bench
dpkg-dev                 | dpkg-shlibdeps                                  | package
file                     | file                                            | package
mmdebstrap               | mmdebstrap                                      | image
umoci                    | umoci                                           | image
runc                     | runc                                            | container
lintian                  | lintian                                         | lintian
systemd                  | /lib/systemd/systemd                            | systemd
iproute2                 | ip                                              | systemd
valgrind                 | valgrind                                        | bench
spin                     | spin                                            | model
default-jre-headless     | java                                            | kafka
maven                    | mvn                                             | kafka
openssl                  | openssl                                         | kafka
clang-format             | clang-format                                    | lint
clang-tidy               | clang-tidy                                      | lint
shellcheck               | shellcheck                                      | lint
"

# Prints the packages of the given groups that are not here.
packages_missing() {
    local package proof group
    while IFS='|' read -r package proof group; do
        package=${package// /}
        proof=${proof// /}
        group=${group// /}
        if [ -z "$package" ] || [[ " $* " != *" $group "* ]]; then
            continue
        fi
        case $proof in
        /*) [ -e "$proof" ] || echo "$package" ;;
        *) command -v "$proof" >/dev/null || echo "$package" ;;
        esac
    done <<<"$package_table"
}

packages_apt() {
    DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 --option Dpkg::Use-Pty=0 --option DPkg::Lock::Timeout=300 "$@" </dev/null
}

packages_install() {
    # initdb for a private cluster is all that is wanted of PostgreSQL: no system cluster beside it.
    if [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        mkdir -p /etc/postgresql-common
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    fi
    packages_apt install --yes --no-install-recommends "$@" >/dev/null
}

# packages_ensure GROUP...: installs what is missing, or says exactly what is.
packages_ensure() {
    local -a missing
    mapfile -t missing < <(packages_missing "$@")
    if [ "${#missing[@]}" -eq 0 ]; then
        return 0
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "dev: these Debian 12 packages are missing: ${missing[*]}" >&2
        echo "dev: as root: apt-get install --no-install-recommends ${missing[*]}" >&2
        return 1
    fi
    echo "dev: installing ${missing[*]}"
    # The lists that are here may do; where they do not, they are fetched and it is tried once more.
    packages_install "${missing[@]}" 2>/dev/null || { packages_apt update >/dev/null && packages_install "${missing[@]}"; }
    mapfile -t missing < <(packages_missing "$@")
    if [ "${#missing[@]}" -ne 0 ]; then
        echo "dev: still missing after the installation: ${missing[*]}" >&2
        return 1
    fi
}

# For what can be left out: false, quietly, where it cannot be had.
packages_try() {
    packages_ensure "$@" >/dev/null 2>&1
}
