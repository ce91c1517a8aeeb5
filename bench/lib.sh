# What the benchmarks share: a network namespace with congestion control cubic, and servers in it. To be sourced.
#
# Core 0 is the server's, core 1 the load's. The default of this kernel may be bbr, which paces on loopback and costs
# 2.7 times as much there.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
relay=${TOWPATH_RELAY:-$root/target/release/towpath-relay}
loadtest=${TOWPATH_LOADTEST:-$root/target/release/towpath-loadtest}
readonly foreign=${TOWPATH_FOREIGN:-$root/.foreign}/bin
readonly derper=$foreign/derper iroh_relay=$foreign/iroh-relay turnserver=turnserver

die() {
    echo "bench: $*" >&2
    exit 1
}

for binary in "$relay" "$loadtest"; do
    [[ -x $binary ]] || die "$binary is missing: run cargo build --release --bins"
done
[[ $(id -u) -eq 0 ]] || die "network namespaces need root: run this as root"
[[ $(nproc) -ge 2 ]] || die "this machine has one core: server and load need one each"
for tool in ip sysctl taskset curl flock; do
    command -v "$tool" > /dev/null || die "$tool is missing: install it"
done
# Two at a time would measure each other, and undo each other's settings.
exec {lock}> "${TMPDIR:-/tmp}/towpath-bench.lock"
flock --nonblock "$lock" || die "another benchmark is running on this machine: wait until it ends"

namespace=towpath-bench-$$
files=$(mktemp -d)
server_pid=
readonly allowed=net.ipv4.tcp_allowed_congestion_control
allowed_before=$(sysctl -n "$allowed")
readonly address=127.0.0.1:4430 admin=127.0.0.1:9430 stun=127.0.0.1:3478

stop_server() {
    if [[ -n $server_pid ]]; then
        kill "$server_pid" 2> /dev/null || true
        wait "$server_pid" 2> /dev/null || true
        server_pid=
    fi
}

backend_pid=

clean_up() {
    stop_server
    [[ -z $backend_pid ]] || kill "$backend_pid" 2> /dev/null || true
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

# relay_config WORKERS STUN-SOCKETS [STUN-SETTINGS]
relay_config() {
    cat << CONFIG
hostname = "localhost"
listen = "$address"
workers = $1
key_file = "$files/relay.key"

[stun]
listen = [$2]
${3:-}

[admin]
listen = "$admin"
CONFIG
}
relay_config 1 '' > "$files/relay.toml"
relay_config 2 '' > "$files/workers.toml"
{ echo 'busy_poll = "200us"'; relay_config 1 ''; } > "$files/polling.toml"
# So many requests come from few addresses: the limit is kept, and not met.
relay_config 1 "\"$stun\"" "rate = 1000000" > "$files/stun.toml"

cat > "$files/iroh.toml" << CONFIG
enable_quic_addr_discovery = false
http_bind_addr = "127.0.0.1:8430"
metrics_bind_addr = "$admin"

[tls]
https_bind_addr = "$address"
cert_mode = "Manual"
manual_cert_path = "$files/self-signed.crt"
manual_key_path = "$files/self-signed.key"
CONFIG

# wait_for COMMAND…: until it succeeds
wait_for() {
    local tries
    for ((tries = 0; tries < 200; tries++)); do
        if "$@" > /dev/null 2>&1; then
            return
        fi
        kill -0 "$server_pid" 2> /dev/null || break
        sleep 0.05
    done
    cat "$files/server.log" >&2
    die "the server did not become ready; its log is above"
}

answers() {
    inside curl -skf -o /dev/null "$1"
}

# One request and its answer.
answers_stun() {
    inside "$loadtest" stun --connect "$stun" --sockets 1 --window 1 --warm-up 10ms --duration 50ms | grep -q 'right answers *[1-9]'
}

# With ADMISSION=verify the relays ask a backend about each client, which allows all. Earlier relays know no admission.
admission=TOWPATH_ADMISSION=open
if [[ ${ADMISSION:-open} == verify ]]; then
    admission=TOWPATH_VERIFY_URL=http://127.0.0.1:8431/verify
    # Not by the function: its process would be the shell's and not the backend's, which must end with the benchmark.
    ip netns exec "$namespace" taskset -c 1 python3 -c '
import http.server
class Allow(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "14")
        self.end_headers()
        self.wfile.write(b"{\"Allow\":true}")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8431), Allow).serve_forever()
' &
    backend_pid=$!
elif [[ ${ADMISSION:-open} != open ]]; then
    die "ADMISSION is open or verify, not $ADMISSION"
fi

# serve CPUS COMMAND…: starts a server in the namespace
serve() {
    local cpus=$1
    shift
    # The environment configures no relay but for the one setting that earlier relays do not know in a file.
    env -u TOWPATH_RELAY -u TOWPATH_LOADTEST -u TOWPATH_FOREIGN "$admission" GOMAXPROCS=1 TOKIO_WORKER_THREADS=1 RUST_LOG=error \
        ip netns exec "$namespace" taskset -c "$cpus" "$@" > "$files/server.log" 2>&1 &
    server_pid=$!
}

# Towpath's certificate for derper, so that curve and key type are the same.
serve_derper() {
    mkdir -p "$files/derper"
    cp "$files/self-signed.crt" "$files/derper/localhost.crt"
    cp "$files/self-signed.key" "$files/derper/localhost.key"
    serve 0 "$derper" -c "$files/derper/derper.key" -hostname localhost -certmode manual -certdir "$files/derper" \
        -a "$address" -verify-clients=false "$@"
}

# start_server NAME
#   towpath derper iroh-relay      relays on core 0
#   before                         the relay $before, on core 0
#   polling                        towpath that polls before it sleeps, on core 0
#   within across                  towpath with two workers on both cores
#   stun-towpath stun-derper stun-coturn    STUN servers on core 0
start_server() {
    case $1 in
        towpath) serve 0 "$relay" --config "$files/relay.toml" && wait_for answers "http://$admin/readyz" ;;
        before) serve 0 "$before" --config "$files/relay.toml" && wait_for answers "http://$admin/readyz" ;;
        polling) serve 0 "$relay" --config "$files/polling.toml" && wait_for answers "http://$admin/readyz" ;;
        within | across)
            serve 0,1 "$relay" --config "$files/workers.toml" && wait_for answers "http://$admin/readyz"
            ;;
        # Its counters are served without TLS on a port of their own.
        derper)
            serve_derper -http-port "${admin##*:}" -stun=false
            wait_for answers "https://localhost:${address##*:}/derp/probe"
            ;;
        iroh-relay)
            serve 0 "$iroh_relay" --config-path "$files/iroh.toml" && wait_for answers "https://localhost:${address##*:}/ping"
            ;;
        stun-towpath) serve 0 "$relay" --config "$files/stun.toml" && wait_for answers_stun ;;
        stun-derper) serve_derper -http-port -1 -stun -stun-port "${stun##*:}" && wait_for answers_stun ;;
        stun-coturn)
            serve 0 "$turnserver" -n --stun-only --listening-ip="${stun%:*}" --listening-port="${stun##*:}" \
                --relay-threads=0 --no-tcp --no-tls --no-dtls --no-cli --no-software-attribute \
                --log-file=/dev/null --no-stdout-log --pidfile="$files/turnserver.pid" \
                --userdb="$files/turndb"
            wait_for answers_stun
            ;;
    esac
}

# measure SERVER NAME SCENARIO ARGUMENTS…: one run on a fresh server, with the report in $reports/NAME.json, or what was
# said instead in $reports/NAME.failed. Where the load generator was too slow, it has one more try.
measure() {
    local server=$1 name=$2 scenario=$3 target attempt status
    shift 3
    target=(--connect "$address" --certificate "$files/self-signed.crt")
    case $server in
        stun-*) target=(--connect "$stun") ;;
        iroh-relay) target+=(--protocol iroh) ;;
        within | across) target+=(--placement "$server") ;;
    esac
    # Counters of what was dropped.
    case $scenario:$server in
        fan-in:derper) target+=(--metrics "http://$admin/debug/varz") ;;
        fan-in:*) target+=(--metrics "http://$admin/metrics") ;;
    esac
    case $server in
        within | across) target+=(--cpus 0,1) ;;
        *) target+=(--cpus 1) ;;
    esac
    for attempt in 1 2; do
        start_server "$server"
        status=0
        inside "$loadtest" "$scenario" "${target[@]}" --server-pid "$server_pid" --json "$files/report.json" "$@" \
            > "$files/load.log" 2>&1 || status=$?
        stop_server
        case $status in
            0) ;;
            3) echo "bench: $name: PACKETS WERE DUPLICATED, REORDERED, CHANGED OR MISROUTED" >&2 ;;
            *)
                tail -5 "$files/load.log" | tee "$reports/$name.failed" >&2
                echo "bench: $name failed" >&2
                return
                ;;
        esac
        mv "$files/report.json" "$reports/$name.json"
        if ((attempt > 1)) || ! grep -q '^  "limited": true' "$reports/$name.json"; then
            return
        fi
        echo "bench: $name: the load generator was too slow; running it once more" >&2
    done
}
