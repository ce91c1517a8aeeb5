package interop

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// exchange writes a request as it stands and reads the response to that method.
func exchange(t *testing.T, relay *relaytest.Relay, method, request string) (*http.Response, string) {
	t.Helper()
	conn := dial(t, relay, tls.VersionTLS13)
	setDeadline(t, conn, answerLimit)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return response(t, bufio.NewReader(conn), method)
}

func response(t *testing.T, from *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	res, err := http.ReadResponse(from, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return res, body(t, res)
}

// body reads the body of a response to its end.
func body(t *testing.T, res *http.Response) string {
	t.Helper()
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// What netcheck, captive portal detection, browsers and scanners ask for.
func TestPaths(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	const any = "*"
	type header map[string]string
	probe := header{"Access-Control-Allow-Origin": "*"}
	for _, tc := range []struct {
		method, path string
		status       int
		body         string
		header       header
	}{
		{"GET", "/derp/latency-check", 200, "", probe},
		{"HEAD", "/derp/latency-check", 200, "", probe},
		{"POST", "/derp/latency-check", 405, "bogus probe method\n", nil},
		{"GET", "/derp/probe", 200, "", probe},
		{"HEAD", "/derp/probe", 200, "", probe},
		{"POST", "/derp/probe", 405, "bogus probe method\n", nil},
		{"GET", "/derp", 426, "DERP requires connection upgrade\n", header{"X-Content-Type-Options": "nosniff"}},
		{"GET", "/generate_204", 204, "", nil},
		{"GET", "/robots.txt", 200, "User-agent: *\nDisallow: /\n", header{"X-Content-Type-Options": "nosniff"}},
		{"GET", "/", 200, any, header{"X-Frame-Options": "DENY"}},
	} {
		t.Run(tc.method+" "+tc.path, func(t *testing.T) {
			request := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", tc.method, tc.path, relay.Addr)
			res, body := exchange(t, relay, tc.method, request)
			if res.StatusCode != tc.status {
				t.Errorf("status %s, want %d", res.Status, tc.status)
			}
			if tc.body != any && body != tc.body {
				t.Errorf("body %q, want %q", body, tc.body)
			}
			if tc.body == any && body == "" {
				t.Error("no body")
			}
			for name, want := range tc.header {
				if got := res.Header.Get(name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
		})
	}
}

// A client that speaks HTTP to the port for TLS reads the same sentence as from derper.
func TestHTTPOnTheTLSPort(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	res, err := http.Get("http://" + relay.Addr.String() + "/derp/probe")
	if err != nil {
		t.Fatal(err)
	}
	text := body(t, res)
	const want = "Client sent an HTTP request to an HTTPS server.\n"
	if res.StatusCode != http.StatusBadRequest || text != want {
		t.Errorf("%s, %q, want 400 and %q", res.Status, text, want)
	}
	if !relay.Stock {
		relay.WaitMetric(t, `towpath_refused_total{reason="http_on_tls"}`, 1)
	}
}

// Load balancers check by OPTIONS, and take 405 for down. (Derper's probes answer so.)
func TestOptions(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, path := range []string{"/", "/derp/probe", "/derp/latency-check", "/nonsense"} {
		res, _ := exchange(t, relay, "OPTIONS", fmt.Sprintf("OPTIONS %s HTTP/1.1\r\nHost: x\r\n\r\n", path))
		status := http.StatusNoContent
		if relay.Stock {
			status = http.StatusOK
			if strings.HasPrefix(path, "/derp/") {
				status = http.StatusMethodNotAllowed
			}
		}
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, res.Status, status)
		}
		if allow := res.Header.Get("Allow"); !relay.Stock && allow != "GET, HEAD, OPTIONS" {
			t.Errorf("%s: Allow: %q", path, allow)
		}
	}
}

// A path that means nothing is not found. (Derper shows its home page, so that a probe with a typo succeeds.)
func TestUnknownPath(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	status := http.StatusNotFound
	if relay.Stock {
		status = http.StatusOK
	}
	for _, path := range []string{"/nonsense", "/derp/nonsense", "/derp/"} {
		res, _ := exchange(t, relay, "GET", fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path))
		if res.StatusCode != status {
			t.Errorf("%s: %s, want %d", path, res.Status, status)
		}
	}
}

// Captive portal detection: a challenge of harmless characters comes back, any other is ignored.
func TestGenerate204Challenge(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct {
		name, challenge string
		answered        bool
	}{
		{"as the client sends it", "ts_derp.example.com", true},
		{"every harmless kind", "azAZ09._:-", true},
		{"64 bytes", strings.Repeat("a", 64), true},
		{"65 bytes", strings.Repeat("a", 65), false},
		{"empty", "", false},
		{"space", "ts derp", false},
		{"slash", "ts/derp", false},
		{"angle bracket", "<script>", false},
		{"not ASCII", "tsé", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			res, body := exchange(t, relay, "GET", fmt.Sprintf(
				"GET /generate_204?t=1700000000 HTTP/1.1\r\nHost: %s\r\nX-Tailscale-Challenge: %s\r\n\r\n",
				relay.Addr, tc.challenge))
			if res.StatusCode != http.StatusNoContent || body != "" {
				t.Errorf("status %s with %d bytes, want 204 without", res.Status, len(body))
			}
			want := ""
			if tc.answered {
				want = "response " + tc.challenge
			}
			if got := res.Header.Get("X-Tailscale-Response"); got != want {
				t.Errorf("response %q, want %q", got, want)
			}
			const cache = "no-cache, no-store, must-revalidate, no-transform, max-age=0"
			if got := res.Header.Get("Cache-Control"); got != cache {
				t.Errorf("Cache-Control: %q, want %q", got, cache)
			}
		})
	}
}

func TestRequestWithoutHost(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, path := range []string{"/derp", "/derp/probe", "/"} {
		t.Run(path, func(t *testing.T) {
			request := fmt.Sprintf("GET %s HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n", path)
			if res, _ := exchange(t, relay, "GET", request); res.StatusCode != http.StatusBadRequest {
				t.Errorf("status %s, want 400", res.Status)
			}
		})
	}
}

// A challenge with a NUL is no header at all.
func TestGenerate204ChallengeWithNUL(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	const request = "GET /generate_204 HTTP/1.1\r\nHost: x\r\nX-Tailscale-Challenge: a\x00b\r\n\r\n"
	res, _ := exchange(t, relay, "GET", request)
	if got := res.Header.Get("X-Tailscale-Response"); res.StatusCode != http.StatusBadRequest || got != "" {
		t.Errorf("status %s with response %q, want 400 without", res.Status, got)
	}
}

// The requests that clients in the field upgrade with.
func TestUpgradeRequests(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct{ name, request string }{
		{"the stock client's", upgradeRequest(relay)},
		{"ts_derp's: POST with an absolute-form target", fmt.Sprintf(
			"POST https://%s/derp HTTP/1.1\r\nhost: %s\r\nupgrade: DERP\r\nconnection: upgrade\r\n\r\n",
			relay.Addr, relay.Addr.Addr())},
		{"without a Connection header", "GET /derp HTTP/1.1\r\nHost: x\r\nUpgrade: derp\r\n\r\n"},
		{"old clients': websocket without a subprotocol",
			"GET /derp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn := dial(t, relay, tls.VersionTLS13)
			setDeadline(t, conn, answerLimit)
			if _, err := io.WriteString(conn, tc.request); err != nil {
				t.Fatal(err)
			}
			wantLogin(t, conn, bufio.NewReader(conn))
		})
	}
}

// wantLogin reads the 101 and logs in, and proves it with a packet.
func wantLogin(t *testing.T, conn *tls.Conn, from *bufio.Reader) {
	t.Helper()
	switching(t, from)
	stream := bufio.NewReadWriter(from, bufio.NewWriter(conn))
	p := collect(logInto(t, key.NewNode(), conn, stream))
	p.send(t, p.public(), "here")
	p.wantPacket(t, p.public(), "here")
}

// A connection that has served ordinary requests can still be upgraded.
func TestUpgradeAfterOtherRequests(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	const probe = "GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n"
	wantProbe := func(t *testing.T, from *bufio.Reader) {
		t.Helper()
		if res, _ := response(t, from, "GET"); res.StatusCode != http.StatusOK {
			t.Fatalf("probe: %s", res.Status)
		}
	}
	t.Run("one by one", func(t *testing.T) {
		conn := dial(t, relay, tls.VersionTLS13)
		setDeadline(t, conn, answerLimit)
		from := bufio.NewReader(conn)
		for range 2 {
			io.WriteString(conn, probe)
			wantProbe(t, from)
		}
		io.WriteString(conn, upgradeRequest(relay))
		wantLogin(t, conn, from)
	})
	t.Run("pipelined", func(t *testing.T) {
		conn := dial(t, relay, tls.VersionTLS13)
		setDeadline(t, conn, answerLimit)
		from := bufio.NewReader(conn)
		io.WriteString(conn, probe+probe+upgradeRequest(relay))
		wantProbe(t, from)
		wantProbe(t, from)
		wantLogin(t, conn, from)
	})
}
