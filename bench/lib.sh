# What the benchmarks share: a network namespace with congestion control cubic, and servers in it. To be sourced.
#
# Core 0 is the server's, core 1 the load's. The default of this kernel may be bbr, which paces on loopback and costs
# 2.7 times as much there.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
relay=${TOWPATH_RELAY:-$root/target/release/towpath-relay}
loadtest=${TOWPATH_LOADTEST:-$root/target/release/towpath-loadtest}
derper=${TOWPATH_FOREIGN:-$root/.foreign}/bin/derper

die() {
    echo "bench: $*" >&2
    exit 1
}

for binary in "$relay" "$loadtest"; do
    [[ -x $binary ]] || die "$binary is missing: cargo build --release --bins"
done
[[ $(id -u) -eq 0 ]] || die "a network namespace needs root"
[[ $(nproc) -ge 2 ]] || die "server and load need a core each"
for tool in ip sysctl taskset curl flock; do
    command -v "$tool" > /dev/null || die "$tool is missing"
done
# Two at a time would measure each other, and undo each other's settings.
exec {lock}> "${TMPDIR:-/tmp}/towpath-bench.lock"
flock --nonblock "$lock" || die "another benchmark runs on this machine"

namespace=towpath-bench-$$
files=$(mktemp -d)
server_pid=
readonly allowed=net.ipv4.tcp_allowed_congestion_control
allowed_before=$(sysctl -n "$allowed")
readonly address=127.0.0.1:4430 admin=127.0.0.1:9430

stop_server() {
    if [[ -n $server_pid ]]; then
        kill "$server_pid" 2> /dev/null || true
        wait "$server_pid" 2> /dev/null || true
        server_pid=
    fi
}

clean_up() {
    stop_server
    ip netns delete "$namespace" 2> /dev/null || true
    sysctl -qw "$allowed=$allowed_before"
    rm -rf "$files"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

inside() {
    ip netns exec "$namespace" "$@"
}

ip netns add "$namespace"
# A namespace may choose only what the machine allows to all.
[[ " $allowed_before " == *" cubic "* ]] || sysctl -qw "$allowed=$allowed_before cubic"
inside ip link set lo up
inside sysctl -qw net.ipv4.tcp_congestion_control=cubic

cat > "$files/relay.toml" << CONFIG
hostname = "localhost"
listen = "$address"
workers = 1
key_file = "$files/relay.key"

[stun]
listen = []

[admin]
listen = "$admin"
CONFIG

# wait_for URL: until it answers with success
wait_for() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        if inside curl -skf -o /dev/null "$1"; then
            return
        fi
        kill -0 "$server_pid" 2> /dev/null || break
        sleep 0.05
    done
    cat "$files/server.log" >&2
    die "the server does not serve"
}

# start_server towpath|derper
start_server() {
    case $1 in
        towpath)
            # The environment must not configure the relay.
            env -u TOWPATH_RELAY -u TOWPATH_LOADTEST -u TOWPATH_FOREIGN \
                ip netns exec "$namespace" taskset -c 0 "$relay" --config "$files/relay.toml" > "$files/server.log" 2>&1 &
            server_pid=$!
            wait_for "http://$admin/readyz"
            ;;
        derper)
            # The certificate is the relay's own, so that curve and key type are the same.
            mkdir -p "$files/derper"
            cp "$files/self-signed.crt" "$files/derper/localhost.crt"
            cp "$files/self-signed.key" "$files/derper/localhost.key"
            env GOMAXPROCS=1 ip netns exec "$namespace" taskset -c 0 "$derper" -c "$files/derper/derper.key" \
                -hostname localhost -certmode manual -certdir "$files/derper" -a "$address" -http-port -1 \
                -stun=false -verify-clients=false > "$files/server.log" 2>&1 &
            server_pid=$!
            wait_for "https://localhost:${address##*:}/derp/probe"
            ;;
    esac
}

# measure SERVER NAME SCENARIO ARGUMENTS…: one run on a fresh server, with the report in $reports/NAME.json
measure() {
    local server=$1 name=$2 scenario=$3
    shift 3
    start_server "$server"
    inside "$loadtest" "$scenario" --connect "$address" --certificate "$files/self-signed.crt" \
        --server-pid "$server_pid" --cpus 1 --json "$reports/$name.json" "$@" > "$files/load.log" 2>&1 \
        || { tail -5 "$files/load.log" >&2; echo "bench: $name failed" >&2; }
    stop_server
}
