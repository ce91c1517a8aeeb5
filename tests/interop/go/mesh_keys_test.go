package interop

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// The key of a mesh is replaced relay by relay, and the region stays whole at each step.
func TestMeshKeyRotation(t *testing.T) {
	if relaytest.UnderTest() == relaytest.Derper {
		t.Skip("derper has one key")
	}
	old, next := newMeshKey(t), newMeshKey(t)
	for _, step := range [][2]relaytest.Mesh{
		{{Key: old, Second: next}, {Key: old}},
		{{Key: old, Second: next}, {Key: old, Second: next}},
		{{Key: next, Second: old}, {Key: old, Second: next}},
		{{Key: next}, {Key: next, Second: old}},
	} {
		var relays [2]*relaytest.Relay
		for i := range relays {
			relays[i] = relaytest.Configure(t, relaytest.Options{PrivateKey: key.NewNode()})
		}
		for i, mesh := range step {
			mesh.Peers = []relaytest.Peer{relays[0].Peer(t), relays[1].Peer(t)}
			relays[i].Join(t, mesh)
			relays[i].Launch(t)
		}
		here, there := newPeer(t, relays[0]), newPeer(t, relays[1])
		settleWithin(t, meshLimit, here, there)
		settleWithin(t, meshLimit, there, here)
	}
}

// A relay without the key of the mesh is told of nobody, and no client of it is reached.
func TestMeshOfTwoKeys(t *testing.T) {
	if relaytest.UnderTest() == relaytest.Derper {
		t.Skip("it counts nothing of this")
	}
	var relays [2]*relaytest.Relay
	for i := range relays {
		relays[i] = relaytest.Configure(t, relaytest.Options{PrivateKey: key.NewNode()})
	}
	for _, r := range relays {
		r.Join(t, relaytest.Mesh{Key: newMeshKey(t), Peers: []relaytest.Peer{relays[0].Peer(t), relays[1].Peer(t)}})
		r.Launch(t)
	}
	for _, r := range relays {
		eventually(t, meshLimit, "the other relay's claim is refused", func() bool {
			return metric(t, r, `towpath_mesh_claims_total{claim="wrong_key"}`) > 0 &&
				metric(t, r, `towpath_closed_total{reason="not_permitted"}`) > 0
		})
		if n := metric(t, r, "towpath_mesh_links"); n != 0 {
			t.Errorf("%v links are up, want none", n)
		}
	}
	here, there := newPeer(t, relays[0]), newPeer(t, relays[1])
	here.send(t, there.public(), disco)
	here.wantGone(t, there.public(), derp.PeerGoneReasonNotHere)
}

// impostor stands where a relay should be: it has a certificate, and says that it has a node key. It returns
// what a client said besides its request.
func impostor(t *testing.T, cert tls.Certificate, says key.NodePublic) (netip.AddrPort, <-chan []byte) {
	t.Helper()
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	said := make(chan []byte, 64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(answerLimit))
				reader := bufio.NewReader(conn)
				req, err := http.ReadRequest(reader)
				if err != nil {
					said <- []byte("no request: " + err.Error())
					return
				}
				if req.Header.Get("Derp-Fast-Start") != "" {
					said <- []byte("a fast start")
					return
				}
				fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
				fmt.Fprint(conn, serverKeyFrame(says))
				var rest bytes.Buffer
				// The client may close without the alert that says so; what it said counts.
				_, _ = rest.ReadFrom(reader)
				said <- rest.Bytes()
			}()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String()), said
}

// The mesh key goes to the relay that the configuration names and to no other: not to one with another
// certificate, and not to one with another node key.
func TestMeshKeyIsNotGivenAway(t *testing.T) {
	if relaytest.UnderTest() == relaytest.Derper {
		t.Skip("derper pins no node key")
	}
	other := relaytest.Configure(t, relaytest.Options{PrivateKey: key.NewNode()})
	cert, err := tls.LoadX509KeyPair(other.CertFiles())
	if err != nil {
		t.Fatal(err)
	}
	named := other.Peer(t)
	for _, tc := range []struct {
		name, step string
		says       key.NodePublic
		pin        string
	}{
		{"another node key", "login", key.NewNode().Public(), named.Pin},
		{"another certificate", "tls", named.Key, "sha256-raw:" + strings.Repeat("00", 32)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address, said := impostor(t, cert, tc.says)
			relay := meshOfOne(t, relaytest.Mesh{
				Key:   newMeshKey(t),
				Peers: []relaytest.Peer{{Addr: address.String(), Pin: tc.pin, Key: named.Key}},
			})
			eventually(t, meshLimit, "the dial is given up", func() bool {
				return metric(t, relay, fmt.Sprintf("towpath_mesh_dial_failures_total{step=%q}", tc.step)) > 0
			})
			select {
			case words := <-said:
				if tc.step == "login" && len(words) > 0 {
					t.Errorf("%d bytes were said to another relay", len(words))
				}
				if tc.step == "tls" && !strings.HasPrefix(string(words), "no request") {
					t.Errorf("a request was sent to somebody without the certificate: %q", words)
				}
			case <-time.After(answerLimit):
				t.Fatal("the relay never dialled")
			}
		})
	}
}
