//! Every setting of the relay: its key, its flag and its meaning.
//!
//! The meaning is the text of `docs/settings.md` and of the constant's documentation. Default and bounds are where a setting
//! is read.

use towpath_service::config::SettingKey;

/// Declares keys, each with its path, what it has besides, and its meaning.
macro_rules! settings {
    ($($name:ident = $path:literal $(.$with:ident($($argument:literal)?))*: $about:literal,)+) => {$(
        #[doc = $about]
        pub const $name: SettingKey = SettingKey::new($path).with_about($about)$(.$with($($argument)?))*;
    )+};
}

settings! {
    HOSTNAME = "hostname".with_flag("--hostname"):
        "The DNS name or IP address that clients dial and that the certificate is for.",
    LISTEN = "listen".with_flag("--listen").with_default_words("`[::]:443`, without IPv6 `0.0.0.0:443`"):
        "The TCP address for DERP and HTTP over TLS. `[::]` takes IPv4 as well. `\"\"` is off, where a proxy ends TLS for \
         `http.listen`.",
    CERT = "cert".file_reloads().with_flag("--cert"):
        "The certificate chain, a PEM file. Without it the relay keeps a self-signed one beside `key_file`.",
    KEY = "key".file_reloads().with_flag("--key"): "The private key of `cert`, a PEM file.",
    KEY_FILE = "key_file".with_flag("--key-file"):
        "The file with the node key, in derper's format. It is made if it is missing.",
    ADMISSION = "admission".with_flag("--open")
        .with_default_words("the policies that are configured; without any, the relay does not start"):
        "The clients that may use the relay: `\"open\"` is every client, a list names policies in the order in which they are \
         asked. The first that allows a login admits it. `--open` is `\"open\"`.",
    REQUIRE = "require":
        "Policies that must all allow a login, as one policy. It is called `require` in `admission`.",
    ALLOW_LIST_FILE = "allow_list.file".file_reloads():
        "The policy `allow_list`: a file with the node keys of clients, one a line. What follows a key on its line is a note, and so is \
         what follows `#`.",
    TOKENS_KEY_FILE = "tokens.key_file".file_reloads():
        "The policy `tokens`: a file with the public keys whose tokens admit clients, one a line, two at most. \
         `token keygen` makes one. What follows `#` is a note.",
    CONFIRM_INTERVAL = "confirm.interval":
        "How often the policies are asked again about a client that is connected. One that they refuse is closed.",
    CONFIRM_GRACE = "confirm.grace":
        "How long a client works after a policy has last allowed it, while its policies cannot tell.",
    CONFIRM_UNKNOWN = "confirm.unknown":
        "What becomes of a client that no policy has allowed before, while they cannot tell: `\"refuse\"`, or `\"admit\"` until they can.",
    STATE_DIR = "state_dir".with_default_words("the directory of `key_file`"):
        "The directory in which the relay keeps the clients that its policies have allowed, over restarts.",
    // No flag: command lines are visible to every user of the machine.
    PRIVATE_KEY = "private_key".secret():
        "The node key itself, in place of `key_file`. The environment is the best place for it.",
    TLS_RECORDS = "tls.records": "The code that opens and seals TLS 1.3 records after the handshake.",
    TLS_CHECK_NAME = "tls.check_name":
        "Whether `cert` must be for `hostname`. With `false` the relay only warns, for maps whose `CertName` is another name.",
    WORKERS = "workers".with_default_words("one for each core"): "Threads that move packets.",
    BUSY_POLL = "busy_poll":
        "How long a worker looks for more work before it sleeps. It cuts the median latency under load to a quarter and \
         keeps a core busy.",
    GATHER = "gather":
        "How long a busy relay lets packets gather, where a trial shows that it saves most of the wake-ups. `0s` is off, as \
         it is with `busy_poll`.",
    KEEPALIVE = "keepalive".with_default_words("`\"1m\"`; `\"40s\"` with `http.listen` or `proxy_protocol.sources`, because proxies close what is silent for 50 to 60 s"):
        "The interval of keep-alive frames. Stock clients leave a relay that is silent for 2 minutes.",
    SHUTDOWN_TIMEOUT = "shutdown_timeout": "How long the threads that move packets may take to end.",
    REGION_ID = "region.id": "The number of the DERP region. 900 to 999 are for relays of one's own.",
    REGION_CODE = "region.code": "The short name of the DERP region, as in `tailscale ping`.",
    REGION_NAME = "region.name": "The name of the DERP region for people.",
    STUN_LISTEN = "stun.listen".with_flag("--stun-listen")
        .with_default_words("`[\"[::]:3478\"]`, without IPv6 `[\"0.0.0.0:3478\"]`"):
        "The UDP addresses for STUN. `[::]` takes IPv4 as well, unless `0.0.0.0` with its port is there, too. `[]` is off. The flag is given once for each address, or with commas.",
    STUN_ALTERNATE = "stun.alternate": "The second UDP addresses, for NAT behaviour discovery (RFC 5780).",
    STUN_CLIENTS = "stun.clients": "Which clients are answered: all that speak STUN, or Tailscale's alone.",
    STUN_RATE = "stun.rate": "Answers a second for each IPv4 address and each IPv6 /64. 0 is no limit.",
    STUN_DISCOVERY_RATE = "stun.discovery_rate":
        "Answers to NAT behaviour discovery, which are longer, a second for each IPv4 address and each IPv6 /64.",
    ADMIN_LISTEN = "admin.listen":
        "The TCP address for metrics and health, over plain HTTP. It is on loopback unless there are `admin.clients`.",
    ADMIN_CLIENTS = "admin.clients":
        "The addresses from which `admin.listen` may be asked besides those of this machine. Others are closed unread.",
    ADMIN_HOSTS = "admin.hosts":
        "The names in `Host` by which the admin listener may be asked. IP addresses and `localhost` always do.",
    ADMIN_SOCKET = "admin.socket":
        "The Unix socket on which the commands `clients`, `kick` and `why` ask the relay. Its owner and its group may connect \
         (mode 0660). Without it there is none.",
    PROXY_PROTOCOL_SOURCES = "proxy_protocol.sources":
        "The proxies whose connections begin with a header of the PROXY protocol, of version 1 or 2, on every listener for \
         clients. The address in it is the client's. A connection from there without a header is closed.",
    HTTP_LISTEN = "http.listen":
        "The TCP address for DERP and HTTP without TLS, behind a proxy. It is on loopback unless there are `http.proxies` \
         or `proxy_protocol.sources`.",
    HTTP_PROXIES = "http.proxies":
        "The proxies: only they, and those in `proxy_protocol.sources`, may then connect to `http.listen`, and their \
         `X-Forwarded-For` is believed.",
    HTTP_REDIRECT_LISTEN = "http.redirect_listen":
        "The TCP address that leads to HTTPS and answers captive-portal challenges. Clients use it on port 80 only.",
    HTTP_HOME = "http.home": "The answer to `/`.",
    BOOTSTRAP_DNS_NAMES = "bootstrap_dns.names":
        "The names whose addresses `/bootstrap-dns` tells to every client.",
    BOOTSTRAP_DNS_UNPUBLISHED_NAMES = "bootstrap_dns.unpublished_names":
        "The names whose addresses `/bootstrap-dns` tells only to clients that ask for them by name (`?q=`).",
    FIRST_BYTE_TIMEOUT = "login.first_byte_timeout".reloads(): "How long a new connection may send nothing.",
    HANDSHAKE_TIMEOUT = "login.handshake_timeout".reloads(): "The time from the first byte of a connection to the end of its TLS handshake.",
    LOGIN_TIMEOUT = "login.login_timeout".reloads(): "The time from the HTTP upgrade to the end of the login.",
    IDLE_HTTP_TIMEOUT = "login.idle_http_timeout".reloads(): "How long an HTTP connection may send no request.",
    MAX_PENDING = "login.max_pending".reloads():
        "Connections that have not logged in yet, on all listeners. At the bound a new one takes the place of an old one.",
    MAX_PENDING_PER_HOST = "login.max_pending_per_host".reloads():
        "Connections of one IPv4 address or one IPv6 /64 that have not logged in yet. A /56 may have twice as many, a /48 \
         four times. More are closed.",
    MAX_CONNECTIONS = "login.max_connections".reloads().with_default_words("the limit on open files less 256"):
        "Connections, before and after their logins. More are closed.",
    MAX_CONNECTIONS_PER_HOST = "login.max_connections_per_host".reloads().with_default_words("4096, or half of `login.max_connections`"):
        "Connections of one IPv4 address or one IPv6 /64. A /56 may have twice as many, a /48 four times, and all some more for \
         each key that is logged in behind them, up to half of `login.max_connections`. More are closed.",
    MAX_CONNECTIONS_PER_KEY = "login.max_connections_per_key".reloads():
        "Connections of one node key. More close the one that has been silent the longest.",
    REFUSE_APP_NAMES = "login.refuse_app_names".reloads():
        "Clients that state one of these app names are refused, as by derper's `-disallow-app-names`. Relays of the mesh are not.",
    OUTBOX_BYTES = "outbox.bytes".reloads():
        "Bytes of packets that wait for one client, disco apart. The oldest are dropped. 32 packets always fit, as in derper.",
    OUTBOX_AGE = "outbox.age".reloads(): "How long a packet waits for its client before it is dropped.",
    OUTBOX_DISCO_BYTES = "outbox.disco_bytes".reloads():
        "Bytes of disco messages that wait for one client, ahead of the rest. At most `outbox.bytes`.",
    WRITE_TIMEOUT = "outbox.write_timeout".reloads(): "How long a client may take no bytes before its connection is closed.",
    MEMORY_MAX = "memory.max".with_default_words("a quarter of what the cgroup or the machine has"):
        "Bytes of packets that wait and of frames that are unfinished, over all connections. At the bound, clients that do \
         not read lose packets first.",
    TAILSCALED_SOCKET = "tailscaled.socket":
        "The socket of the local tailscaled, which then admits the nodes of its tailnet. It is \
         `/var/run/tailscale/tailscaled.sock` as a rule.",
    VERIFY_URL = "verify.url":
        "The URL that is asked whether a key may use the relay, such as Headscale's `/verify`.",
    VERIFY_CA_FILE = "verify.ca_file":
        "The root certificates for `verify.url`, a PEM file. Without it they are the system's.",
    VERIFY_TOKEN_FILE = "verify.token_file":
        "The file with a token that is sent to `verify.url` as `Authorization: Bearer …`.",
    VERIFY_TIMEOUT = "verify.timeout": "How long an answer of `verify.url` may take, from the question on.",
    MESH_KEY_FILE = "mesh.key_file":
        "The file with the key that the relays of a region share. `keygen --mesh` makes one.",
    MESH_SECOND_KEY_FILE = "mesh.second_key_file":
        "The file with a key that is accepted as well and never sent, for the time in which the key is replaced.",
    MESH_PROBER_KEY_FILE = "mesh.prober_key_file":
        "The file with a key that gives the right to watch which clients are connected, and no other right.",
    MESH_SOURCES = "mesh.sources": "The addresses from which a mesh key is accepted. `[]` is every address.",
    MESH_PEERS = "mesh.peers".reloads():
        "The relays of the region to link to. The relay's own entry is ignored, so all of them can share one list.",
    MESH_MAX_KEYS = "mesh.max_keys".reloads().with_default_words("1000000 shared equally between `mesh.peers`, at least 1000"):
        "Keys that each relay of `mesh.peers` may announce, some 400 bytes of memory each. The link of a relay that announces more \
         is closed, and dialled again after a minute.",
    MESH_CA_FILE = "mesh.ca_file":
        "The root certificates for `mesh.peers` without a pin, a PEM file. Without it they are the system's.",
    LOG_FORMAT = "log.format": "The form of log lines, which go to standard error.",
    LOG_LEVEL = "log.level":
        "The least severe events that are logged. `debug` has a line for each login, refusal and close.",
}
