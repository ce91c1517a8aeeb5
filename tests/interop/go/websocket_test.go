package interop

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"tailscale.com/derp"
	"tailscale.com/net/wsconn"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// webSocketURLs are the ways to a relay: over TLS and, where there is one, over its plain listener.
func webSocketURLs(relay *relaytest.Relay) map[string]string {
	urls := map[string]string{"wss": fmt.Sprintf("wss://%s/derp", relay.Addr)}
	if relay.Plain.IsValid() {
		urls["ws"] = fmt.Sprintf("ws://%s/derp", relay.Plain)
	}
	return urls
}

// dialWebSocket shakes hands as the stock client does, with what o says besides.
func dialWebSocket(t testing.TB, url string, o websocket.DialOptions) (*websocket.Conn, *http.Response) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	o.HTTPClient = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	conn, res, err := websocket.Dial(ctx, url, &o)
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	return conn, res
}

// loginWebSocket logs a fresh key in with the stock client over the stock adapter.
func loginWebSocket(t testing.TB, url string, o websocket.DialOptions) *peer {
	t.Helper()
	o.Subprotocols = append(o.Subprotocols, "derp")
	conn, res := dialWebSocket(t, url, o)
	if conn.Subprotocol() != "derp" {
		t.Fatalf("the relay chose the subprotocol %q", conn.Subprotocol())
	}
	if extensions := res.Header.Get("Sec-WebSocket-Extensions"); extensions != "" {
		t.Fatalf("the relay chose the extensions %q", extensions)
	}
	netConn := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, url)
	stream := bufio.NewReadWriter(bufio.NewReader(netConn), bufio.NewWriter(netConn))
	return logInto(t, key.NewNode(), netConn, stream)
}

// wantStatus demands that the relay closes with this status.
func wantStatus(t *testing.T, conn *websocket.Conn, want websocket.StatusCode) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	for {
		if _, _, err := conn.Read(ctx); err != nil {
			if got := websocket.CloseStatus(err); got != want {
				t.Fatalf("closed with %v (%v), want %v", got, err, want)
			}
			return
		}
	}
}

// A browser offers compression and, as the case may be, several subprotocols, and says where its page is from.
func TestWebSocketLogin(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for name, url := range webSocketURLs(relay) {
		for kind, options := range map[string]websocket.DialOptions{
			"as the stock client": {},
			"as a browser": {
				HTTPHeader:      http.Header{"Origin": {"https://elsewhere.example"}, "Cookie": {"a=b"}},
				Subprotocols:    []string{"chat"},
				CompressionMode: websocket.CompressionContextTakeover,
			},
		} {
			t.Run(name+" "+kind, func(t *testing.T) {
				browser, native := collect(loginWebSocket(t, url, options)), newPeer(t, relay)
				for _, size := range []int{0, 1, 1_400, 32_000} {
					data := strings.Repeat("w", size)
					browser.send(t, native.public(), data)
					native.wantPacket(t, browser.public(), data)
					native.send(t, browser.public(), data)
					browser.wantPacket(t, native.public(), data)
				}
				browser.wantNothing(t)
				browser.leave()
				native.wantGone(t, browser.public(), derp.PeerGoneReasonDisconnected)
			})
		}
	}
}

// While the reader keeps up, packets of any size pass unchanged in both directions.
func TestTenThousandPacketsOverWebSocket(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	limit := derp.MaxPacketSize
	if relay.Stock {
		// Derper's WebSocket reader takes no message above 32 KiB, which its own clients write for larger packets.
		limit = 32 << 10
	}
	for name, url := range webSocketURLs(relay) {
		browser, native := loginWebSocket(t, url, websocket.DialOptions{}), login(t, relay, key.NewNode())
		for direction, pair := range map[string][2]*peer{
			"to TLS": {browser, native}, "from TLS": {native, browser},
		} {
			t.Run(name+" "+direction, func(t *testing.T) { wantStream(t, relay.Stock, pair[0], pair[1], 10_000, limit) })
		}
	}
}

// A packet must pass however large the messages are that the client makes of it, up to 1 MiB; what the relay sends fits
// into what Go's library takes unless told otherwise.
func TestWebSocketMessageSizes(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	url := webSocketURLs(relay)["wss"]
	a, b := collect(loginWebSocket(t, url, websocket.DialOptions{})), collect(loginWebSocket(t, url, websocket.DialOptions{}))
	sizes := []int{32_680, 32_768, 40_000, derp.MaxPacketSize}
	if relay.Stock {
		sizes = sizes[:1]
	}
	for _, size := range sizes {
		data := strings.Repeat("p", size)
		a.send(t, b.public(), data)
		b.wantPacket(t, a.public(), data)
	}
	for _, tc := range []struct {
		size     int
		accepted bool
	}{{32 << 10, true}, {32<<10 + 1, !relay.Stock}, {1 << 20, !relay.Stock}, {1<<20 + 1, false}} {
		t.Run(fmt.Sprint(tc.size), func(t *testing.T) {
			conn, _ := dialWebSocket(t, url, websocket.DialOptions{Subprotocols: []string{"derp"}})
			netConn := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, url)
			p := collect(logInto(t, key.NewNode(), netConn, bufio.NewReadWriter(bufio.NewReader(netConn), bufio.NewWriter(netConn))))
			// Frames of an unknown type, which are skipped.
			var message []byte
			for left := tc.size; left > 0; left = tc.size - len(message) {
				message = append(message, encode(0x20, make([]byte, min(left-derp.FrameHeaderLen, 32_000)))...)
			}
			if err := conn.Write(t.Context(), websocket.MessageBinary, message); err != nil && tc.accepted {
				t.Fatal(err)
			}
			if tc.accepted {
				p.wantNothing(t)
			} else {
				p.wantClosed(t, answerLimit)
			}
		})
	}
	if relay.Stock {
		return // derper does not look as far
	}
	conn, _ := dialWebSocket(t, url, websocket.DialOptions{Subprotocols: []string{"derp"}})
	// The relay may close before it has taken all of the message.
	_ = conn.Write(t.Context(), websocket.MessageBinary, make([]byte, 2<<20))
	wantStatus(t, conn, websocket.StatusMessageTooBig)
}

func TestWebSocketSubprotocol(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for name, url := range webSocketURLs(relay) {
		for _, offered := range [][]string{{"notderp"}, {"derp2", "chat"}, {"chat"}, {"DERP"}} {
			t.Run(fmt.Sprint(name, offered), func(t *testing.T) {
				if relay.Stock && !strings.Contains(strings.Join(offered, ","), "derp") {
					t.Skip("derper speaks DERP without messages to a client that speaks WebSocket")
				}
				conn, res := dialWebSocket(t, url, websocket.DialOptions{Subprotocols: offered})
				if chosen := res.Header.Get("Sec-WebSocket-Protocol"); chosen != "" {
					t.Errorf("the relay chose %q", chosen)
				}
				wantStatus(t, conn, websocket.StatusPolicyViolation)
			})
		}
	}
}

// DERP is bytes; text closes, before the login and after it.
func TestWebSocketText(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	url := webSocketURLs(relay)["wss"]
	conn, _ := dialWebSocket(t, url, websocket.DialOptions{Subprotocols: []string{"derp"}})
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	wantStatus(t, conn, websocket.StatusUnsupportedData)

	conn, _ = dialWebSocket(t, url, websocket.DialOptions{Subprotocols: []string{"derp"}})
	netConn := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, url)
	stream := bufio.NewReadWriter(bufio.NewReader(netConn), bufio.NewWriter(netConn))
	p := logInto(t, key.NewNode(), netConn, stream)
	if err := conn.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	setDeadline(t, p.conn, answerLimit)
	if _, err := p.Recv(); websocket.CloseStatus(err) != websocket.StatusUnsupportedData {
		t.Fatalf("got %v, want a close with 1003", err)
	}
}

func TestWebSocketPing(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for name, url := range webSocketURLs(relay) {
		t.Run(name, func(t *testing.T) {
			conn, _ := dialWebSocket(t, url, websocket.DialOptions{Subprotocols: []string{"derp"}})
			netConn := wsconn.NetConn(context.Background(), conn, websocket.MessageBinary, url)
			stream := bufio.NewReadWriter(bufio.NewReader(netConn), bufio.NewWriter(netConn))
			// A pong is seen by who reads.
			collect(logInto(t, key.NewNode(), netConn, stream))
			ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
			defer cancel()
			for range 3 {
				if err := conn.Ping(ctx); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
