package interop

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go4.org/mem"
	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/salsa20/salsa"
	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// loginLimit is the time that a relay gives a client between the upgrade and its ClientInfo.
const loginLimit = 10 * time.Second

// upgraded returns a connection on which the relay waits for ClientInfo, and the relay's key. A stock client
// can be made of the stream: ServerKey is still to be read.
func upgraded(t testing.TB, relay *relaytest.Relay) (*tls.Conn, *bufio.ReadWriter, key.NodePublic) {
	t.Helper()
	conn := dial(t, relay, tls.VersionTLS13)
	setDeadline(t, conn, answerLimit)
	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	if _, err := io.WriteString(conn, upgradeRequest(relay)); err != nil {
		t.Fatal(err)
	}
	switching(t, stream.Reader)
	greeting, err := stream.Reader.Peek(5 + len(derp.Magic) + derp.KeyLen)
	if err != nil {
		t.Fatal(err)
	}
	return conn, stream, key.NodePublicFromRaw32(mem.B(greeting[5+len(derp.Magic):]))
}

// clientInfo is the frame that logs private in with this JSON.
func clientInfo(private key.NodePrivate, server key.NodePublic, json []byte) []byte {
	return encode(derp.FrameClientInfo, private.Public().AppendTo(nil), private.SealTo(server, json))
}

// wantAdmitted demands ServerInfo behind ServerKey.
func wantAdmitted(t testing.TB, from *bufio.Reader) {
	t.Helper()
	for _, want := range []derp.FrameType{derp.FrameServerKey, derp.FrameServerInfo} {
		typ, size, err := derp.ReadFrameHeader(from)
		if err != nil {
			t.Fatalf("frame %v: %v", want, err)
		}
		if typ != want {
			t.Fatalf("frame %v, want %v", typ, want)
		}
		if _, err := from.Discard(int(size)); err != nil {
			t.Fatal(err)
		}
	}
}

// wantRefused demands that the relay closes the connection and sends nothing behind ServerKey.
func wantRefused(t testing.TB, from *bufio.Reader) {
	t.Helper()
	rest, err := io.ReadAll(from)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the relay did not close the connection in time")
	}
	if extra := len(rest) - 5 - len(derp.Magic) - derp.KeyLen; extra > 0 {
		t.Fatalf("the relay sent %d bytes behind ServerKey", extra)
	}
}

func TestClientInfo(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	// Nothing that a client has to say takes 4 KiB. Derper takes 256 KiB from anyone.
	limit := 4 << 10
	if relay.Stock {
		limit = 256 << 10
	}
	const overhead = derp.KeyLen + derp.NonceLen + secretbox.Overhead
	padded := func(frame int) string {
		const empty = `{"version":2,"Future":""}`
		return fmt.Sprintf(`{"version":2,"Future":"%s"}`, strings.Repeat("x", frame-overhead-len(empty)))
	}
	named := func(name string) string { return fmt.Sprintf(`{"version":2,"AppName":"%s"}`, name) }
	meshKey := func(digits int) string {
		return fmt.Sprintf(`{"version":2,"meshKey":"%s"}`, strings.Repeat("a", digits))
	}
	for _, tc := range []struct {
		name, json string
		admitted   bool
	}{
		{"of the stock client", `{"version":2,"CanAckPings":true}`, true},
		{"of ts_derp", `{"can_ack_pings":false,"is_prober":false,"mesh_key":"none","version":2}`, true},
		{"with names in another case", `{"VERSION":2,"canackpings":true}`, true},
		{"with unknown fields", `{"version":2,"Future":{"a":[1,2,3]}}`, true},
		{"with an application's name", named("some app"), true},
		{"with an application's name in escapes", named(`\u0061\"\\~`), true},
		{"with an application's name of 32 bytes", named(strings.Repeat("x", 32)), true},
		{"with an application's name of 33 bytes", named(strings.Repeat("x", 33)), false},
		{"with an application's name of two lines", named(`a\nb`), false},
		{"with an application's name beyond ASCII", named("é"), false},
		{"with an application's name that is null", `{"version":2,"AppName":null}`, true},
		{"with an application's name that is a number", `{"version":2,"AppName":1}`, false},
		{"with a second name that is good", `{"AppName":"\u007f","appname":"x"}`, true},
		{"with a second name that is not", `{"AppName":"x","appname":"\u007f"}`, false},
		{"of another version", `{"version":3}`, true},
		{"of 1 KiB", padded(1 << 10), true},
		{"too large", padded(limit + 1), false},
		{"that is not JSON", `version 2`, false},
		{"with a version that is text", `{"version":"2"}`, false},
		{"with a mesh key that nobody asked for", meshKey(64), true},
		{"with a bad mesh key", `{"version":2,"meshKey":"none"}`, false},
		{"with a short mesh key", meshKey(62), false},
		{"with a long mesh key", meshKey(66), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, stream, server := upgraded(t, relay)
			// A relay that refuses need not read all of it.
			_, _ = conn.Write(clientInfo(key.NewNode(), server, []byte(tc.json)))
			if tc.admitted {
				wantAdmitted(t, stream.Reader)
			} else {
				wantRefused(t, stream.Reader)
			}
		})
	}
}

func TestUnreadableLoginIsRefused(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct {
		name  string
		frame func(server key.NodePublic) []byte
	}{
		{"box for another relay", func(key.NodePublic) []byte {
			return clientInfo(key.NewNode(), key.NewNode().Public(), []byte(`{"version":2}`))
		}},
		{"key of somebody else", func(server key.NodePublic) []byte {
			sealed := key.NewNode().SealTo(server, []byte(`{"version":2}`))
			return encode(derp.FrameClientInfo, key.NewNode().Public().AppendTo(nil), sealed)
		}},
		{"too short", func(key.NodePublic) []byte { return encode(derp.FrameClientInfo, make([]byte, 55)) }},
		{"another frame first", func(key.NodePublic) []byte { return encode(derp.FramePing, make([]byte, 8)) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			conn, stream, server := upgraded(t, relay)
			if _, err := conn.Write(tc.frame(server)); err != nil {
				t.Fatal(err)
			}
			wantRefused(t, stream.Reader)
		})
	}
}

// A key of low order has no private half: the shared secret is zero with everyone, so anyone could log in
// with it. Derper refuses only the zero key.
func TestLowOrderKeyIsRefused(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct{ name, public string }{
		{"zero", "0000000000000000000000000000000000000000000000000000000000000000"},
		{"order 1", "0100000000000000000000000000000000000000000000000000000000000000"},
		{"order 8", "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"},
		{"order 8, the other", "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"},
		{"p-1", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
		{"p", "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
		{"p+1", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"},
		{"order 1 with the top bit", "0100000000000000000000000000000000000000000000000000000000000080"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			public, err := hex.DecodeString(tc.public)
			if err != nil {
				t.Fatal(err)
			}
			conn, stream, _ := upgraded(t, relay)
			if _, err := conn.Write(encode(derp.FrameClientInfo, public, sealWithZeroSecret([]byte(`{"version":2}`)))); err != nil {
				t.Fatal(err)
			}
			if relay.Stock && tc.name != "zero" {
				wantAdmitted(t, stream.Reader) // which proves that the forged box opens
			} else {
				wantRefused(t, stream.Reader)
			}
		})
	}
}

// sealWithZeroSecret makes a NaCl box under the shared secret of all zeros.
func sealWithZeroSecret(message []byte) []byte {
	var secret, boxKey [32]byte
	var none [16]byte
	salsa.HSalsa20(&boxKey, &none, &secret, &salsa.Sigma)
	var nonce [24]byte
	rand.Read(nonce[:])
	return secretbox.Seal(nonce[:], message, &nonce, &boxKey)
}

// A client that does not finish its login is not kept.
func TestUnfinishedLogin(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	const slack = 2 * time.Second
	for _, tc := range []struct {
		name  string
		limit time.Duration
		act   func(conn *tls.Conn, frame []byte)
	}{
		{"silent", loginLimit + slack, func(*tls.Conn, []byte) {}},
		{"dripping", loginLimit + slack, drip},
		{"half closed", slack, func(conn *tls.Conn, frame []byte) {
			_, _ = conn.Write(frame[:len(frame)/2])
			_ = conn.CloseWrite()
			_ = conn.NetConn().(*net.TCPConn).CloseWrite()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			conn, stream, server := upgraded(t, relay)
			setDeadline(t, conn, tc.limit)
			go tc.act(conn, clientInfo(key.NewNode(), server, []byte(`{"version":2}`)))
			wantRefused(t, stream.Reader)
		})
	}
}

// drip writes a byte every 500 ms until the relay has had enough.
func drip(conn *tls.Conn, frame []byte) {
	for _, b := range frame {
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
		time.Sleep(500 * time.Millisecond)
	}
}
