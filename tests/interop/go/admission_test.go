package interop

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"tailscale.com/derp"
	"tailscale.com/net/wsconn"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// What derper does with a client that it must admit first, one test for each behaviour. TestVerifyURL has the answers of a
// backend.

var version2 = []byte(`{"version":2}`)

// wantNotAdmitted demands the end of a login that policies refuse: our relay says why first, if told is set.
func wantNotAdmitted(t *testing.T, relay *relaytest.Relay, from *bufio.Reader, told bool) {
	t.Helper()
	wantFrame(t, from, derp.FrameServerKey)
	if told && !relay.Stock {
		wantFrame(t, from, derp.FrameHealth)
	}
	rest, err := io.ReadAll(from)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the relay does not close the connection")
	}
	if len(rest) > 0 {
		t.Fatalf("before the end: %q", rest)
	}
}

// askingRelayOfMesh starts a relay that has a mesh key and asks a backend about its clients.
func askingRelayOfMesh(t *testing.T) (*relaytest.Relay, *verifyBackend, string) {
	t.Helper()
	meshKey := newMeshKey(t)
	backend := newVerifyBackend(t)
	relay := relaytest.Configure(t, relaytest.Options{PrivateKey: key.NewNode(), VerifyURL: backend.URL + "/verify"})
	relay.Join(t, relaytest.Mesh{Key: meshKey})
	relay.Launch(t)
	return relay, backend, meshKey
}

// A client that is refused is nowhere: no client has its packets, no watcher hears of it, and no metric counts it.
func TestRefusedClientIsNotRegistered(t *testing.T) {
	relay, backend, meshKey := askingRelayOfMesh(t)
	watcher := loginWith(t, relay, meshKey, loginOptions{}).watch(t, derp.PeerPresentIsMeshPeer)
	member := collect(login(t, relay, backend.client(allow)))
	watcher.wantPresent(t, member, derp.PeerPresentIsRegular)

	stranger := backend.client(refuse)
	conn, stream, server := upgraded(t, relay)
	packet := encode(derp.FrameSendPacket, member.public().AppendTo(nil), []byte("from a stranger"))
	if _, err := conn.Write(append(clientInfo(stranger, server, version2), packet...)); err != nil {
		t.Fatal(err)
	}
	wantNotAdmitted(t, relay, stream.Reader, true)
	member.send(t, stranger.Public(), disco)
	member.wantGone(t, stranger.Public(), derp.PeerGoneReasonNotHere)
	member.wantNothing(t)
	watcher.wantNothing(t)
	relay.WaitMetric(t, "derp_current_connections", 2)
}

// A client that is refused is closed behind ServerKey, however it began. Ours says why once.
func TestRefusalOnTheWire(t *testing.T) {
	backend := newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{PrivateKey: key.NewNode(), VerifyURL: backend.URL + "/verify"})
	server := relay.ReadKey(t).Public()
	upgrade := func(t *testing.T, private key.NodePrivate, told bool) {
		conn, stream, _ := upgraded(t, relay)
		if _, err := conn.Write(clientInfo(private, server, version2)); err != nil {
			t.Fatal(err)
		}
		wantNotAdmitted(t, relay, stream.Reader, told)
	}
	t.Run("upgrade", func(t *testing.T) {
		stranger := backend.client(refuse)
		upgrade(t, stranger, true)
		upgrade(t, stranger, false)
		want := 1
		if relay.Stock {
			want = 2
		}
		if got := backend.asked(stranger); got != want {
			t.Errorf("asked %d times about a client that dials again at once, want %d", got, want)
		}
	})
	t.Run("fast start", func(t *testing.T) {
		_, from := fastStart(t, relay, clientInfo(backend.client(refuse), server, version2))
		wantNotAdmitted(t, relay, from, true)
	})
	t.Run("WebSocket", func(t *testing.T) {
		url := webSocketURLs(relay)["wss"]
		conn, _ := dialWebSocket(t, url, websocket.DialOptions{Subprotocols: []string{"derp"}})
		netConn := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, url)
		setDeadline(t, netConn, answerLimit)
		from := bufio.NewReader(netConn)
		wantFrame(t, from, derp.FrameServerKey)
		if _, err := netConn.Write(clientInfo(backend.client(refuse), server, version2)); err != nil {
			t.Fatal(err)
		}
		if !relay.Stock {
			wantFrame(t, from, derp.FrameHealth)
		}
		rest, err := io.ReadAll(from)
		// The stock adapter takes a close with 1000, which is derper's, for the end.
		if status := websocket.CloseStatus(err); len(rest) > 0 || (relay.Stock && err != nil) ||
			(!relay.Stock && status != websocket.StatusPolicyViolation) {
			t.Errorf("behind ServerKey %q, then %v (%v)", rest, err, status)
		}
	})
}

// A holder of the mesh key is not asked about. What else a client says of itself spares it nothing.
func TestMeshKeyIsAdmittedUnasked(t *testing.T) {
	relay, backend, meshKey := askingRelayOfMesh(t)
	// The backend fails the test when it is asked about a key that it does not know.
	loginWith(t, relay, meshKey, loginOptions{}).wantNothing(t)
	for _, tc := range []struct{ name, json string }{
		{"another mesh key", fmt.Sprintf(`{"version":2,"meshKey":%q}`, newMeshKey(t))},
		{"a prober", `{"version":2,"IsProber":true}`},
		{"an application", `{"version":2,"AppName":"some app"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			stranger := backend.client(refuse)
			conn, stream, server := upgraded(t, relay)
			if _, err := conn.Write(clientInfo(stranger, server, []byte(tc.json))); err != nil {
				t.Fatal(err)
			}
			wantNotAdmitted(t, relay, stream.Reader, true)
			if got := backend.asked(stranger); got != 1 {
				t.Errorf("asked about it %d times, want once", got)
			}
		})
	}
}

// A backend is asked about keys that their clients have proved alone.
func TestKeyThatIsNotProvedIsNotAskedAbout(t *testing.T) {
	backend := newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{VerifyURL: backend.URL + "/verify"})
	member := backend.client(allow)
	conn, stream, server := upgraded(t, relay)
	forged := encode(derp.FrameClientInfo, member.Public().AppendTo(nil), key.NewNode().SealTo(server, version2))
	if _, err := conn.Write(forged); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, stream.Reader)
	if got := backend.asked(member); got != 0 {
		t.Errorf("asked about it %d times", got)
	}
	if !relay.Admits(t, member) {
		t.Error("the client that has the key is not admitted")
	}
}

// Derper asks about each connection of a key, ours about the key.
func TestConnectionsOfAKeyAreAskedAbout(t *testing.T) {
	backend := newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{VerifyURL: backend.URL + "/verify"})
	member := backend.client(allow)
	const connections = 3
	for range connections {
		login(t, relay, member)
	}
	want := 1
	if relay.Stock {
		want = connections
	}
	if got := backend.asked(member); got != want {
		t.Errorf("asked about the key %d times, want %d", got, want)
	}
}

// A question is sent to the URL as it is, and names the address of the client.
func TestVerifyQuestion(t *testing.T) {
	backend := newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{VerifyURL: backend.URL + "/verify?relay=a"})
	member := key.NewNode()
	contentType := "application/json"
	if relay.Stock {
		contentType = ""
	}
	backend.know(member, func(w http.ResponseWriter, r *http.Request) {
		if r.RequestURI != "/verify?relay=a" || r.Header.Get("Content-Type") != contentType || r.Header.Get("Authorization") != "" {
			t.Errorf("%s with %v", r.RequestURI, r.Header)
		}
		allow(w, r)
	}, "127.0.0.9")
	loginWith(t, relay, "", loginOptions{private: member, from: "127.0.0.9"}).wantNothing(t)
	if got := backend.asked(member); got != 1 {
		t.Errorf("asked about it %d times, want once", got)
	}
}

// A backend that gives no answer: derper's fail-open covers all that happens before the body of an answer. Ours covers that, too.
func TestVerifyURLWithoutAnswer(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	for _, tc := range []struct {
		name    string
		answer  http.HandlerFunc
		url     func(t *testing.T) string
		covered bool
		outcome string
	}{
		{name: "hangs", answer: hang, covered: true, outcome: "timeout"},
		{name: "hangs within its answer", answer: func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"Allow":`)
			w.(http.Flusher).Flush()
			hang(w, r)
		}, outcome: "timeout"},
		{name: "redirects to itself", answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		}, covered: true, outcome: "redirect"},
		{name: "is not trusted", url: func(t *testing.T) string {
			server := httptest.NewUnstartedServer(allow)
			server.Config.ErrorLog = log.New(io.Discard, "", 0)
			server.StartTLS()
			t.Cleanup(server.Close)
			return server.URL
		}, covered: true, outcome: "tls"},
		{name: "has no address", url: func(*testing.T) string { return "https://verify.invalid" }, covered: true, outcome: "resolve"},
		{name: "does not listen", url: func(t *testing.T) string {
			return "http://" + relaytest.FreeAddress(t).String()
		}, covered: true, outcome: "connect"},
	} {
		for _, failOpen := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, fail open %v", tc.name, failOpen), func(t *testing.T) {
				t.Parallel()
				url, private := "", key.NewNode()
				if tc.url != nil {
					url = tc.url(t)
				} else {
					backend := newVerifyBackend(t)
					url, private = backend.URL, backend.client(tc.answer)
				}
				relay := relaytest.Start(t, relaytest.Options{VerifyURL: url + "/verify", FailOpen: failOpen})
				if got, want := relay.Admits(t, private), failOpen && (tc.covered || !relay.Stock); got != want {
					t.Errorf("admitted: %v, want %v", got, want)
				}
				if !relay.Stock {
					relay.WaitMetric(t, fmt.Sprintf("towpath_admission_questions_total{outcome=%q,policy=\"verify_url\"}", tc.outcome), 1)
				}
			})
		}
	}
}

// Derper asks about a connection once, so that a key that is revoked keeps those that it has. Ours closes them.
func TestRevokedKey(t *testing.T) {
	backend := newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{
		VerifyURL: backend.URL + "/verify",
		Settings:  `confirm.interval = "5s"`,
	})
	member := collect(login(t, relay, backend.client(allow)))
	revoked := collect(login(t, relay, backend.client(allow)))
	revoked.send(t, member.public(), "before")
	member.wantPacket(t, revoked.public(), "before")
	backend.know(revoked.private, refuse, "127.0.0.1")
	if !relay.Stock {
		// The interval, and as much again.
		revoked.wantClosed(t, 10*time.Second)
		member.wantGone(t, revoked.public(), derp.PeerGoneReasonDisconnected)
	}
	if relay.Admits(t, revoked.private) {
		t.Error("a revoked key logs in")
	}
	if relay.Stock {
		revoked.send(t, member.public(), "after")
		member.wantPacket(t, revoked.public(), "after")
	}
	member.wantNothing(t)
}

// The names of applications are looked at before a backend is asked, and not of relays of the mesh.
func TestRefusedAppName(t *testing.T) {
	meshKey := newMeshKey(t)
	backend := newVerifyBackend(t)
	relay := relaytest.Configure(t, relaytest.Options{
		PrivateKey: key.NewNode(), VerifyURL: backend.URL + "/verify", RefuseAppNames: []string{"one app", "another"},
	})
	relay.Join(t, relaytest.Mesh{Key: meshKey})
	relay.Launch(t)
	for _, name := range []string{"one app", "another"} {
		member := backend.client(allow)
		conn, stream, server := upgraded(t, relay)
		if _, err := conn.Write(clientInfo(member, server, fmt.Appendf(nil, `{"version":2,"AppName":%q}`, name))); err != nil {
			t.Fatal(err)
		}
		wantNotAdmitted(t, relay, stream.Reader, true)
		if got := backend.asked(member); got != 0 {
			t.Errorf("asked %d times about a client with the name %q", got, name)
		}
		loginWith(t, relay, meshKey, loginOptions{appName: name}).wantNothing(t)
	}
	for _, name := range []string{"", "one", "One app"} {
		loginWith(t, relay, "", loginOptions{private: backend.client(allow), appName: name}).wantNothing(t)
	}
}

// Probes, the challenge of captive portals and STUN are for clients that have not logged in, and nothing is asked for them.
func TestProbesNeedNoAdmission(t *testing.T) {
	// It fails the test when it is asked anything.
	backend := newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{VerifyURL: backend.URL + "/verify"})
	for path, want := range map[string]int{"/derp/probe": 200, "/derp/latency-check": 200, "/generate_204": 204, "/bootstrap-dns": 200} {
		res, _ := exchange(t, relay, "GET", fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", path, relay.Addr))
		if res.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask(t, conn, relay.STUN)
	if relay.Admits(t, backend.client(refuse)) {
		t.Error("a client that the backend refuses is admitted")
	}
}

// tailscaled is what a relay asks of a local tailscaled.
type tailscaled struct {
	socket  string
	server  *http.Server
	mu      sync.Mutex
	answers map[string]http.HandlerFunc
}

func newTailscaled(t *testing.T) *tailscaled {
	d := &tailscaled{socket: filepath.Join(t.TempDir(), "tailscaled.sock"), answers: map[string]http.HandlerFunc{}}
	listener, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	version := strconv.Itoa(int(tailcfg.CurrentCapabilityVersion))
	d.server = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Tailscale-Cap", version)
		if r.Method != "GET" || r.Host != "local-tailscaled.sock" || r.Header.Get("Tailscale-Cap") != version {
			t.Errorf("%s %s at %s with %v", r.Method, r.RequestURI, r.Host, r.Header)
		}
		// Only ours asks for the state, before it takes a key for one that is not known.
		if r.RequestURI == "/localapi/v0/status?peers=false" {
			_, _ = io.WriteString(w, `{"BackendState":"Running","CurrentTailnet":{}}`)
			return
		}
		d.mu.Lock()
		answer := d.answers[r.RequestURI]
		d.mu.Unlock()
		if answer == nil {
			t.Errorf("asked for %s", r.RequestURI)
			return
		}
		answer(w, r)
	})}
	go func() { _ = d.server.Serve(listener) }()
	t.Cleanup(func() { _ = d.server.Close() })
	return d
}

// know has it answer so about a key.
func (d *tailscaled) know(private key.NodePrivate, answer http.HandlerFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.answers["/localapi/v0/whois?addr="+strings.Replace(private.Public().String(), ":", "%3A", 1)] = answer
}

// The two answers that decide.
var nodeIsKnown, nodeIsNotKnown = says(200, `{}`), says(404, "no match for IP:port\n")

// By each answer of a local tailscaled: it is never taken for an allowance. While it is gone ours knows whom it has admitted.
func TestLocalTailscaled(t *testing.T) {
	daemon := newTailscaled(t)
	relay := relaytest.Start(t, relaytest.Options{TailscaledSocket: daemon.socket})
	client := func(answer http.HandlerFunc) key.NodePrivate {
		private := key.NewNode()
		daemon.know(private, answer)
		return private
	}
	for _, tc := range []struct {
		name     string
		answer   http.HandlerFunc
		admitted bool
		outcome  string
	}{
		{"known", nodeIsKnown, true, "allow"},
		{"not known", nodeIsNotKnown, false, "refuse"},
		{"too old", says(400, "invalid 'addr' parameter\n"), false, "too_old"},
		{"broken", says(500, "no netmap\n"), false, "server_error"},
		{"access denied", says(403, "access denied\n"), false, "denied"},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, "broken"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			counter := fmt.Sprintf("towpath_admission_questions_total{outcome=%q,policy=\"tailscaled\"}", tc.outcome)
			var before float64
			if !relay.Stock {
				before, _ = relay.Metric(t, counter)
			}
			if got := relay.Admits(t, client(tc.answer)); got != tc.admitted {
				t.Errorf("admitted: %v, want %v", got, tc.admitted)
			}
			if !relay.Stock {
				relay.WaitMetric(t, counter, before+1)
			}
			if !relay.Admits(t, client(nodeIsKnown)) {
				t.Error("the next client is not admitted")
			}
		})
	}
	member := client(nodeIsKnown)
	if !relay.Admits(t, member) {
		t.Fatal("a client that is known is not admitted")
	}
	// It closes its connections and removes its socket.
	if err := daemon.server.Close(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what    string
		private key.NodePrivate
		want    bool
	}{
		{"a client that was admitted", member, !relay.Stock},
		{"another", client(nodeIsKnown), false},
	} {
		if got := relay.Admits(t, tc.private); got != tc.want {
			t.Errorf("without tailscaled, %s is admitted: %v", tc.what, got)
		}
	}
}

// With a local tailscaled and a URL, both must allow, and the URL is not asked about a node that tailscaled does not know.
func TestTailscaledAndVerifyURLMustBothAllow(t *testing.T) {
	daemon, backend := newTailscaled(t), newVerifyBackend(t)
	relay := relaytest.Start(t, relaytest.Options{TailscaledSocket: daemon.socket, VerifyURL: backend.URL + "/verify"})
	for _, tc := range []struct {
		name        string
		node, url   http.HandlerFunc
		asked       int
		areAdmitted bool
	}{
		{"both", nodeIsKnown, allow, 1, true},
		{"tailscaled alone", nodeIsKnown, refuse, 1, false},
		{"the URL alone", nodeIsNotKnown, allow, 0, false},
		{"none", nodeIsNotKnown, refuse, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			private := backend.client(tc.url)
			daemon.know(private, tc.node)
			if got := relay.Admits(t, private); got != tc.areAdmitted {
				t.Errorf("admitted: %v, want %v", got, tc.areAdmitted)
			}
			if got := backend.asked(private); got != tc.asked {
				t.Errorf("the URL was asked %d times, want %d", got, tc.asked)
			}
		})
	}
}
