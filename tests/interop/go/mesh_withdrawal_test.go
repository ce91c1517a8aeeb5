package interop

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// standIn is a relay of the region that the test plays itself, so that it can say what no relay would.
type standIn struct {
	peer  relaytest.Peer
	links chan *link
}

// link is what the relay under test has dialled, logged in and watching.
type link struct {
	conn net.Conn
	// forwarded are the payloads of the ForwardPacket frames that came.
	forwarded chan []byte
}

// newStandIn listens until the end of the test.
func newStandIn(t *testing.T) *standIn {
	t.Helper()
	private := key.NewNode()
	files := relaytest.Configure(t, relaytest.Options{PrivateKey: private})
	cert, err := tls.LoadX509KeyPair(files.CertFiles())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := &standIn{peer: files.Peer(t), links: make(chan *link, 8)}
	s.peer.Addr = listener.Addr().String()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go s.serve(conn, private)
		}
	}()
	return s
}

// serve plays the relay's part of a login, and then collects what the other end asks for.
func (s *standIn) serve(conn net.Conn, private key.NodePrivate) {
	defer conn.Close()
	reader := bufio.NewReader(conn)
	if _, err := http.ReadRequest(reader); err != nil {
		return
	}
	fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n")
	fmt.Fprint(conn, serverKeyFrame(private.Public()))
	l := &link{conn: conn, forwarded: make(chan []byte, 256)}
	for {
		header := make([]byte, derp.FrameHeaderLen)
		if _, err := io.ReadFull(reader, header); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(header[1:]))
		if _, err := io.ReadFull(reader, payload); err != nil {
			return
		}
		switch derp.FrameType(header[0]) {
		case derp.FrameClientInfo:
			box := private.SealTo(key.NodePublicFromRaw32(mem.B(payload[:derp.KeyLen])), []byte(`{"version":2}`))
			_, _ = conn.Write(encode(derp.FrameServerInfo, box))
		case derp.FrameWatchConns:
			s.links <- l
		case derp.FrameForwardPacket:
			l.forwarded <- payload
		}
	}
}

// linked waits until the relay under test watches.
func (s *standIn) linked(t *testing.T) *link {
	t.Helper()
	select {
	case l := <-s.links:
		return l
	case <-time.After(meshLimit):
		t.Fatal("the relay does not link")
		return nil
	}
}

// say writes a frame about a key.
func (l *link) say(t *testing.T, typ derp.FrameType, who key.NodePublic, rest ...byte) {
	t.Helper()
	if _, err := l.conn.Write(encode(typ, who.AppendTo(nil), rest)); err != nil {
		t.Fatal(err)
	}
}

func (l *link) present(t *testing.T, who key.NodePublic) {
	t.Helper()
	l.say(t, derp.FramePeerPresent, who, make([]byte, 19)...)
}

func (l *link) gone(t *testing.T, who key.NodePublic) {
	t.Helper()
	l.say(t, derp.FramePeerGone, who, byte(derp.PeerGoneReasonDisconnected))
}

// wantForwarded demands that a packet of from is sent on to this relay: the next one, probes aside.
func (l *link) wantForwarded(t *testing.T, from, to key.NodePublic, data string) {
	t.Helper()
	want := string(to.AppendTo(from.AppendTo(nil))) + data
	for {
		select {
		case got := <-l.forwarded:
			if string(got[2*derp.KeyLen:]) == probe {
				continue
			}
			if string(got) != want {
				t.Fatalf("sent on %q, want %q", got, want)
			}
			return
		case <-time.After(answerLimit):
			t.Fatal("no packet is sent on")
		}
	}
}

// A relay that takes back a key which it never announced changes nothing: whoever has the key keeps it. It is counted.
// (Derper counts it if it knows one other way to the key, ours always.)
func TestKeyTakenBackByAnotherRelay(t *testing.T) {
	const counter = "derp_packet_forwarder_delete_other_value"
	one, other := newStandIn(t), newStandIn(t)
	relay := meshOfOne(t, relaytest.Mesh{Key: newMeshKey(t), Peers: []relaytest.Peer{one.peer, other.peer}})
	first, second := one.linked(t), other.linked(t)
	here, there, nowhere := newPeer(t, relay), key.NewNode().Public(), key.NewNode().Public()
	first.present(t, there)
	eventually(t, answerLimit, "a packet is sent on", func() bool {
		here.send(t, there, probe)
		return len(first.forwarded) > 0
	})
	before := metric(t, relay, counter)

	second.gone(t, there)
	relay.WaitMetric(t, counter, before+1)
	here.send(t, there, "still there")
	first.wantForwarded(t, here.public(), there, "still there")

	second.gone(t, nowhere)
	second.gone(t, here.public())
	counted := before + 3
	if relay.Stock {
		counted--
	}
	relay.WaitMetric(t, counter, counted)
	from := newPeer(t, relay)
	from.send(t, here.public(), "still here")
	here.wantPacket(t, from.public(), "still here")
	if n := len(second.forwarded); n > 0 {
		t.Errorf("%d packets were sent on to the wrong relay", n)
	}

	// Who announced it may take it back.
	first.gone(t, there)
	eventually(t, answerLimit, "the key is gone", func() bool {
		here.send(t, there, disco)
		select {
		case m := <-here.messages:
			return m == (derp.PeerGoneMessage{Peer: there, Reason: derp.PeerGoneReasonNotHere})
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
	if n := metric(t, relay, counter); n != counted {
		t.Errorf("%v are counted, want %v", n, counted)
	}
}
