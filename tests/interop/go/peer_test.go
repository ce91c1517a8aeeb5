package interop

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/health"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// answerLimit bounds the wait for something the relay has to do at once.
const answerLimit = 5 * time.Second

// peer is a stock derp.Client, logged in, on a TLS connection of its own. Unlike derphttp.Client it never
// connects again, so a connection that the relay closes is seen to be closed.
type peer struct {
	*derp.Client
	private  key.NodePrivate
	conn     net.Conn
	messages chan derp.ReceivedMessage
	tracker  *health.Tracker // see shownHealth
}

// dial makes a TLS connection and leaves the trust in the certificate to the tests that are about it.
func dial(t testing.TB, r *relaytest.Relay, maxVersion uint16) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", r.Addr.String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: maxVersion})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// upgradeRequest is what the stock client writes when it does not know the relay's key.
func upgradeRequest(r *relaytest.Relay) string {
	return fmt.Sprintf("GET /derp HTTP/1.1\r\nHost: %s\r\nUser-Agent: Go-http-client/1.1\r\n"+
		"Connection: Upgrade\r\nUpgrade: DERP\r\n\r\n", r.Addr)
}

// login connects private to the relay and returns when ServerInfo is there: the relay knows the key by then.
func login(t testing.TB, r *relaytest.Relay, private key.NodePrivate) *peer {
	t.Helper()
	conn := dial(t, r, tls.VersionTLS13)
	setDeadline(t, conn, answerLimit)
	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	if _, err := io.WriteString(conn, upgradeRequest(r)); err != nil {
		t.Fatal(err)
	}
	switching(t, stream.Reader)
	return logInto(t, private, conn, stream)
}

// switching reads a 101 response.
func switching(t testing.TB, from *bufio.Reader) {
	t.Helper()
	res, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: %s", res.Status)
	}
}

// logInto runs the login on a connection that has been upgraded.
func logInto(t testing.TB, private key.NodePrivate, conn net.Conn, stream *bufio.ReadWriter) *peer {
	t.Helper()
	client, err := derp.NewClient(private, conn, stream, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	first, err := client.Recv()
	if err != nil {
		t.Fatalf("ServerInfo: %v", err)
	}
	if info, ok := first.(derp.ServerInfoMessage); !ok {
		t.Fatalf("first message is %T, want ServerInfo", first)
	} else if info != (derp.ServerInfoMessage{}) {
		t.Fatalf("an unlimited relay announces limits: %+v", info)
	}
	setDeadline(t, conn, 0)
	return &peer{Client: client, private: private, conn: conn}
}

// newPeer logs a fresh key in and starts to collect its messages.
func newPeer(t testing.TB, r *relaytest.Relay) *peer {
	t.Helper()
	return collect(login(t, r, key.NewNode()))
}

// collect moves a peer's messages to its channel, which is closed at the end of the connection.
func collect(p *peer) *peer {
	p.messages = make(chan derp.ReceivedMessage, 256)
	go func() {
		defer close(p.messages)
		for {
			m, err := p.Recv()
			if err != nil {
				return
			}
			switch m := m.(type) {
			case derp.KeepAliveMessage:
			case derp.ReceivedPacket:
				m.Data = bytes.Clone(m.Data)
				p.messages <- m
			default:
				p.messages <- m
			}
		}
	}()
	return p
}

// next waits for the next message. Packets that [settle] sent do not count.
func (p *peer) next(t testing.TB) derp.ReceivedMessage {
	t.Helper()
	late := time.After(answerLimit)
	for {
		select {
		case m, ok := <-p.messages:
			if !ok {
				t.Fatal("the relay closed the connection")
			}
			if !isProbe(m) {
				return m
			}
		case <-late:
			t.Fatalf("no message within %v", answerLimit)
		}
	}
}

// probe is the packet of [settle].
const probe = "are you the active one?"

func isProbe(m derp.ReceivedMessage) bool {
	packet, ok := m.(derp.ReceivedPacket)
	return ok && string(packet.Data) == probe
}

// settle returns when to is the active one of its key's connections, which no frame tells: probes reach it
// again and again.
func settle(t testing.TB, from, to *peer) {
	t.Helper()
	deadline := time.Now().Add(answerLimit)
	for arrived := 0; arrived < 3; {
		from.send(t, to.public(), probe)
		select {
		case m := <-to.messages:
			if !isProbe(m) {
				t.Fatalf("got %T %+v, want a probe", m, m)
			}
			arrived++
		case <-time.After(20 * time.Millisecond):
			arrived = 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("packets do not reach the connection that should be active")
		}
	}
}

// wantPacket demands that the next message is this packet.
func (p *peer) wantPacket(t testing.TB, from key.NodePublic, data string) {
	t.Helper()
	m := p.next(t)
	packet, ok := m.(derp.ReceivedPacket)
	if !ok {
		t.Fatalf("got %T %+v, want a packet", m, m)
	}
	if packet.Source != from {
		t.Fatalf("packet from %v, want %v", packet.Source.ShortString(), from.ShortString())
	}
	if string(packet.Data) != data {
		t.Fatalf("packet of %d bytes, want %d: %.80q", len(packet.Data), len(data), packet.Data)
	}
}

// wantGone demands that the next message is a PeerGone.
func (p *peer) wantGone(t testing.TB, who key.NodePublic, why derp.PeerGoneReasonType) {
	t.Helper()
	want := derp.PeerGoneMessage{Peer: who, Reason: why}
	if m := p.next(t); m != want {
		t.Fatalf("got %T %+v, want %+v", m, m, want)
	}
}

// wantNothing demands that the relay has sent nothing that it was to send before now: a ping's answer is the
// next message.
func (p *peer) wantNothing(t testing.TB) {
	t.Helper()
	ping := [8]byte{'n', 'o', 't', 'h', 'i', 'n', 'g', '?'}
	if err := p.SendPing(ping); err != nil {
		t.Fatal(err)
	}
	if m := p.next(t); m != derp.PongMessage(ping) {
		t.Fatalf("got %T %+v, want nothing", m, m)
	}
}

// wantClosed demands that the relay closes the connection within limit, whatever it sent before.
func (p *peer) wantClosed(t testing.TB, limit time.Duration) {
	t.Helper()
	late := time.After(limit)
	for {
		select {
		case _, ok := <-p.messages:
			if !ok {
				return
			}
		case <-late:
			t.Fatalf("the relay did not close the connection within %v", limit)
		}
	}
}

func (p *peer) send(t testing.TB, to key.NodePublic, data string) {
	t.Helper()
	if err := p.Send(to, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// encode returns a frame of any type; its length is that of the payload.
func encode(typ derp.FrameType, payload ...[]byte) []byte {
	joined := bytes.Join(payload, nil)
	header := binary.BigEndian.AppendUint32([]byte{byte(typ)}, uint32(len(joined)))
	return append(header, joined...)
}

// frame writes a frame that the client library does not write.
func (p *peer) frame(t testing.TB, typ derp.FrameType, payload []byte) {
	t.Helper()
	if _, err := p.conn.Write(encode(typ, payload)); err != nil {
		t.Fatal(err)
	}
}

// leave closes the connection; the relay learns it from the socket.
func (p *peer) leave() { p.conn.Close() }

func (p *peer) public() key.NodePublic { return p.private.Public() }

// setDeadline bounds all reads and writes; 0 takes the bound away.
func setDeadline(t testing.TB, conn net.Conn, limit time.Duration) {
	t.Helper()
	var deadline time.Time
	if limit != 0 {
		deadline = time.Now().Add(limit)
	}
	if err := conn.SetDeadline(deadline); err != nil {
		t.Fatal(err)
	}
}
