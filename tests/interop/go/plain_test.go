package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// dialPlain connects without TLS, from an address of loopback.
func dialPlain(t *testing.T, from string, to netip.AddrPort) net.Conn {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: answerLimit}
	conn, err := dialer.Dial("tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	setDeadline(t, conn, answerLimit)
	return conn
}

// get asks for a path without TLS; redirects are not followed.
func get(t *testing.T, from string, to netip.AddrPort, request string) (*http.Response, string) {
	t.Helper()
	conn := dialPlain(t, from, to)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	return response(t, bufio.NewReader(conn), method)
}

// The probes are 200, and DERP without an upgrade is 426, with TLS and without.
func TestProbesAre200AndDERPWithoutUpgradeIs426(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for path, want := range map[string]int{"/derp/probe": 200, "/derp/latency-check": 200, "/derp": 426} {
		request := fmt.Sprintf("GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		if res, _ := exchange(t, relay, "GET", request); res.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, res.Status, want)
		}
		if !relay.Plain.IsValid() {
			continue
		}
		if res, _ := get(t, "127.0.0.1", relay.Plain, request); res.StatusCode != want {
			t.Errorf("%s without TLS: %s, want %d", path, res.Status, want)
		}
	}
}

// What a captive-portal challenge is answered with on port 80, where clients ask.
func TestPort80Challenge(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for challenge, want := range map[string]string{
		"":                          "",
		"ts_derp":                   "response ts_derp",
		"ts_derp.example.com":       "response ts_derp.example.com",
		"ts derp":                   "",
		strings.Repeat("a", 64):     "response " + strings.Repeat("a", 64),
		strings.Repeat("a", 65):     "",
		"<script>alert(1)</script>": "",
	} {
		res, body := get(t, "127.0.0.1", relay.Port80, fmt.Sprintf(
			"GET /generate_204?t=1700000000 HTTP/1.1\r\nHost: x\r\nX-Tailscale-Challenge: %s\r\n\r\n", challenge))
		if got := res.Header.Get("X-Tailscale-Response"); res.StatusCode != 204 || body != "" || got != want {
			t.Errorf("%q: %s, %q, response %q; want %q", challenge, res.Status, body, got, want)
		}
	}
}

// The home page has what is configured of it.
func TestHomePage(t *testing.T) {
	for home, want := range map[string]struct {
		status         int
		body, location string
	}{
		"":                        {200, "DERP", ""},
		"blank":                   {200, "", ""},
		"https://example.com/a?b": {302, "", "https://example.com/a?b"},
	} {
		t.Run("home "+home, func(t *testing.T) {
			relay := relaytest.Start(t, relaytest.Options{Home: home})
			res, body := exchange(t, relay, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if res.StatusCode != want.status || res.Header.Get("Location") != want.location {
				t.Errorf("%s to %q", res.Status, res.Header.Get("Location"))
			}
			if !strings.Contains(body, want.body) || (home == "blank" && body != "") {
				t.Errorf("body %q", body)
			}
			if got := res.Header.Get("X-Frame-Options"); got != "DENY" {
				t.Errorf("X-Frame-Options: %q", got)
			}
		})
	}
}

// Where the listener of port 80 leads to. (Derper leads whoever may debug it, as this machine may, to its debug pages, and
// targets that are no paths nowhere.)
func TestPort80Redirect(t *testing.T) {
	type answer struct {
		status   int
		location string
	}
	relay := relaytest.Start(t, relaytest.Options{})
	base := "https://" + relay.Addr.String()
	stock := map[string]answer{}
	if relay.Stock {
		base = "https://foo.example" // whatever the client asked for
		stock = map[string]answer{
			"GET /":                       {302, base + "/debug/"},
			"HEAD /":                      {302, base + "/debug/"},
			"GET /debug/":                 {200, ""},
			"GET //evil.example/":         {307, "/evil.example/"},
			"GET http://foo.example/path": {302, base + "http://foo.example/path"},
			"OPTIONS *":                   {200, ""},
		}
	}
	for request, want := range map[string]answer{
		"GET /":                       {302, base + "/"},
		"HEAD /":                      {302, base + "/"},
		"GET /path":                   {302, base + "/path"},
		"GET /path?a=b&c=%20":         {302, base + "/path?a=b&c=%20"},
		"GET //evil.example/":         {302, base + "//evil.example/"},
		"GET /derp":                   {302, base + "/derp"},
		"GET /debug/":                 {302, base + "/debug/"},
		"GET http://foo.example/path": {302, base + "/path"},
		"POST /path":                  {400, ""},
		"PUT /path":                   {400, ""},
		"OPTIONS *":                   {204, ""},
	} {
		t.Run(request, func(t *testing.T) {
			if differs, found := stock[request]; found {
				want = differs
			}
			res, body := get(t, "127.0.0.1", relay.Port80, fmt.Sprintf(
				"%s HTTP/1.1\r\nHost: foo.example\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n", request))
			if got := (answer{res.StatusCode, res.Header.Get("Location")}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if want.status == 400 && body != "Use HTTPS\n" {
				t.Errorf("body %q", body)
			}
		})
	}
}

// Published names are told to everybody, unpublished ones to who asks by name.
func TestBootstrapDNS(t *testing.T) {
	type answer = map[string][]netip.Addr
	ask := func(t *testing.T, relay *relaytest.Relay, query string) answer {
		t.Helper()
		res, body := exchange(t, relay, "GET", fmt.Sprintf("GET /bootstrap-dns%s HTTP/1.1\r\nHost: x\r\n\r\n", query))
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/json" || !res.Close {
			t.Fatalf("%s, %v", res.Status, res.Header)
		}
		if body == "" {
			return nil
		}
		var names answer
		if err := json.Unmarshal([]byte(body), &names); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		return names
	}
	// Names are resolved after the start.
	wait := func(t *testing.T, relay *relaytest.Relay, query string) answer {
		t.Helper()
		deadline := time.Now().Add(answerLimit)
		for {
			if names := ask(t, relay, query); len(names) > 0 {
				return names
			}
			if time.Now().After(deadline) {
				t.Fatal("localhost is not resolved")
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	const name = "localhost"
	wantLoopback := func(t *testing.T, names answer) {
		t.Helper()
		if len(names) != 1 || len(names[name]) == 0 {
			t.Fatalf("got %v, want %s", names, name)
		}
		for _, address := range names[name] {
			if !address.IsLoopback() {
				t.Errorf("%s is at %v", name, address)
			}
		}
	}
	t.Run("published", func(t *testing.T) {
		relay := relaytest.Start(t, relaytest.Options{BootstrapDNS: []string{name}})
		wantLoopback(t, wait(t, relay, ""))
		wantLoopback(t, ask(t, relay, "?q="+name))
		wantLoopback(t, ask(t, relay, "?q=nowhere.example"))
	})
	t.Run("unpublished", func(t *testing.T) {
		relay := relaytest.Start(t, relaytest.Options{UnpublishedDNS: []string{name}})
		wantLoopback(t, wait(t, relay, "?q="+name))
		for _, query := range []string{"", "?q=", "?q=nowhere.example", "?name=" + name} {
			if names := ask(t, relay, query); len(names) != 0 {
				t.Errorf("%q is told %v", query, names)
			}
		}
	})
	t.Run("none", func(t *testing.T) {
		relay := relaytest.Start(t, relaytest.Options{})
		if names := ask(t, relay, "?q="+name); names != nil {
			t.Errorf("got %v, want nothing", names)
		}
	})
}

// wantLogged waits until the relay's log has this text: a thread of its own writes it.
func wantLogged(t *testing.T, relay *relaytest.Relay, text string) {
	t.Helper()
	eventually(t, answerLimit, "the log has "+text, func() bool {
		log, err := os.ReadFile(relay.Log())
		if err != nil {
			t.Fatal(err)
		}
		return strings.Contains(string(log), text)
	})
}

// The plain listener takes connections from its proxies alone, and believes them about where clients are.
func TestPlainListenerIsForItsProxies(t *testing.T) {
	relay := relaytest.Configure(t, relaytest.Options{Proxies: []string{"127.0.0.1", "127.0.1.0/24"}})
	if relay.Stock {
		t.Skip("derper has no plain listener beside TLS")
	}
	relay.Launch(t)
	for _, stranger := range []string{"127.0.0.2", "127.0.2.1"} {
		conn := dialPlain(t, stranger, relay.Plain)
		// The relay may reset the connection before it is written to.
		_, _ = io.WriteString(conn, "GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n")
		if answer, err := io.ReadAll(conn); len(answer) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s is answered %q, %v", stranger, answer, err)
		}
	}
	for _, proxy := range []string{"127.0.0.1", "127.0.1.77"} {
		conn := dialPlain(t, proxy, relay.Plain)
		client := netip.AddrFrom4([4]byte{192, 0, 2, proxy[len(proxy)-1]})
		request := strings.Replace(upgradeRequest(relay), "\r\n\r\n",
			fmt.Sprintf("\r\nX-Forwarded-For: 198.51.100.1, %s, 127.0.1.5\r\n\r\n", client), 1)
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
		switching(t, stream.Reader)
		p := collect(logInto(t, key.NewNode(), conn, stream))
		p.send(t, p.public(), "here")
		p.wantPacket(t, p.public(), "here")
		wantLogged(t, relay, "address="+client.String()+":0")
	}
	if log := relaytest.Tail(relay.Log(), 1<<20); strings.Contains(log, "198.51.100.1") {
		t.Errorf("what a client has written into the header is believed:\n%s", log)
	}
	res, _ := get(t, "127.0.0.1", relay.Plain, "GET /derp/probe HTTP/1.1\r\nHost: x\r\n\r\n")
	if res.StatusCode != http.StatusOK {
		t.Errorf("a proxy's health check: %s", res.Status)
	}
}
