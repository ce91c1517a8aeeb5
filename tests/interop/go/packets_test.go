package interop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// stream is a sequence of packets that both ends derive from a seed: each knows the size and the bytes of
// packet n, so that loss, exchange and change of a packet all show, down to packets of one byte.
type stream struct {
	sizes *rand.Rand
	noise []byte
	n     int
}

func newStream(seed uint64) *stream {
	s := &stream{sizes: rand.New(rand.NewPCG(seed, 0)), noise: make([]byte, 1<<20)}
	source := rand.New(rand.NewPCG(seed, 1))
	for i := 0; i < len(s.noise); i += 8 {
		binary.LittleEndian.PutUint64(s.noise[i:], source.Uint64())
	}
	return s
}

// next returns a view of packet n, cut to limit. Most have the size of a full WireGuard packet, some any size; the bounds
// of size classes in a relay come up often.
func (s *stream) next(limit int) []byte {
	bounds := []int{1, 2, 61, 62, 63, 1499, 1500, 16_347, 16_384, 32_767, 65_503, 65_504, 65_535, 65_536}
	var size int
	switch s.sizes.IntN(128) {
	case 0:
		size = 1 + s.sizes.IntN(derp.MaxPacketSize)
	case 1, 2:
		size = bounds[s.sizes.IntN(len(bounds))]
	default:
		size = 1_280 + s.sizes.IntN(160)
	}
	// A step that shares no factor with the modulus: neighbours never look alike.
	at := s.n * 7_919 % (len(s.noise) - derp.MaxPacketSize)
	s.n++
	return s.noise[at : at+min(size, limit)]
}

// While the reader keeps up, the relay loses, reorders and changes nothing.
func TestHundredThousandPackets(t *testing.T) {
	const packets = 100_000
	relay := relaytest.Start(t, relaytest.Options{})
	from, to := login(t, relay, key.NewNode()), login(t, relay, key.NewNode())
	setDeadline(t, from.conn, time.Minute)
	setDeadline(t, to.conn, time.Minute)
	start := time.Now()
	total := wantStream(t, relay.Stock, from, to, packets, derp.MaxPacketSize)
	t.Logf("%d packets, %d MB in %v", packets, total/1_000_000, time.Since(start).Round(time.Millisecond))
}

// wantStream sends a stream of packets, none longer than limit, and demands it at the other end. It returns their bytes.
// stock says that there is a derper on the way.
func wantStream(t *testing.T, stock bool, from, to *peer, packets, limit int) int {
	t.Helper()
	const windowBytes = 256 << 10
	windowPackets := packets
	if stock {
		windowPackets = 32 // derper's queue counts packets and drops the oldest
	}

	// The reader returns the size of each packet; the sender spends them. It never has more underway.
	read, failed := make(chan int, packets), make(chan error, 1)
	go func() { failed <- readStream(to.Client, from.public(), newStream(1), packets, limit, read) }()

	sent := newStream(1)
	var outstanding, inFlight, total int
	for range packets {
		packet := sent.next(limit)
		for inFlight > 0 && (outstanding+len(packet) > windowBytes || inFlight == windowPackets) {
			size, ok := <-read
			if !ok {
				t.Fatal(<-failed)
			}
			outstanding -= size
			inFlight--
		}
		if err := from.Send(to.public(), packet); err != nil {
			t.Fatal(err)
		}
		outstanding += len(packet)
		total += len(packet)
		inFlight++
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	return total
}

// readStream compares packets to the stream and reports each one's size.
func readStream(client *derp.Client, from key.NodePublic, want *stream, packets, limit int, read chan<- int) error {
	defer close(read)
	for n := range packets {
		m, err := client.Recv()
		if err != nil {
			return fmt.Errorf("packet %d: %w", n, err)
		}
		packet, ok := m.(derp.ReceivedPacket)
		if !ok {
			return fmt.Errorf("packet %d: got a %T", n, m)
		}
		if packet.Source != from {
			return fmt.Errorf("packet %d: from %v", n, packet.Source)
		}
		if expected := want.next(limit); !bytes.Equal(packet.Data, expected) {
			return fmt.Errorf("packet %d: %d bytes that are not the %d sent", n, len(packet.Data), len(expected))
		}
		read <- len(packet.Data)
	}
	return nil
}

func TestPacketSizes(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	a, b := newPeer(t, relay), newPeer(t, relay)
	for _, size := range []int{0, 1, 61, 62, 1_500, 65_504, derp.MaxPacketSize} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			data := strings.Repeat("p", size)
			a.send(t, b.public(), data)
			b.wantPacket(t, a.public(), data)
		})
	}
}

func TestPacketToOneself(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	a := newPeer(t, relay)
	a.send(t, a.public(), "hello me")
	a.wantPacket(t, a.public(), "hello me")
}

// A client may write packets behind its ClientInfo without waiting for ServerInfo.
func TestPacketsBehindClientInfo(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	b := newPeer(t, relay)
	conn, stream, _ := upgraded(t, relay)
	a := key.NewNode()
	client, err := derp.NewClient(a, conn, stream, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range []string{"first", "second"} {
		if err := client.Send(b.public(), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	b.wantPacket(t, a.Public(), "first")
	b.wantPacket(t, a.Public(), "second")
}

// A ping comes back with its first 8 bytes and nothing of what may follow them.
func TestPing(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	a := newPeer(t, relay)
	for _, extra := range []int{0, 1, 992} {
		t.Run(fmt.Sprintf("%d bytes more", extra), func(t *testing.T) {
			ping := []byte{0, 1, 2, 3, 4, 5, 6, byte(extra)}
			a.frame(t, derp.FramePing, append(ping, make([]byte, extra)...))
			if m := a.next(t); m != derp.PongMessage(ping) {
				t.Fatalf("got %T %v, want %v", m, m, ping)
			}
		})
	}
}

// Frames of unknown types, and known ones that mean nothing to a relay, are read over and change nothing, up to the length
// of the longest packet with its key.
func TestUnknownFramesAreSkipped(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	a, b := newPeer(t, relay), newPeer(t, relay)
	for _, tc := range []struct {
		name string
		typ  derp.FrameType
		size int
	}{
		{"type 0", 0x00, 10},
		{"empty", 0x20, 0},
		{"type 255", 0xff, 1},
		{"64 KiB", 0x21, 64 << 10},
		{"longest", 0x22, derp.MaxPacketSize + derp.KeyLen},
		{"Pong", derp.FramePong, 8},
		{"second ClientInfo", derp.FrameClientInfo, 100},
	} {
		t.Run(tc.name, func(t *testing.T) {
			setDeadline(t, a.conn, 2*answerLimit)
			a.frame(t, tc.typ, bytes.Repeat([]byte{0x5a}, tc.size))
			a.send(t, b.public(), tc.name)
			b.wantPacket(t, a.public(), tc.name)
		})
	}
}

// The relay answers a frame that breaks the protocol by closing the connection.
func TestBadFrameCloses(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct {
		name string
		typ  derp.FrameType
		size int
	}{
		{"SendPacket without a whole key", derp.FrameSendPacket, 31},
		{"SendPacket over 64 KiB", derp.FrameSendPacket, derp.KeyLen + derp.MaxPacketSize + 1},
		{"NotePreferred without a byte", derp.FrameNotePreferred, 0},
		{"NotePreferred of two bytes", derp.FrameNotePreferred, 2},
		{"Ping of 7 bytes", derp.FramePing, 7},
		{"Ping of 1001 bytes", derp.FramePing, 1001},
		{"WatchConns without the mesh key", derp.FrameWatchConns, 0},
		{"ClosePeer without the mesh key", derp.FrameClosePeer, derp.KeyLen},
		{"ForwardPacket without the mesh key", derp.FrameForwardPacket, 2 * derp.KeyLen},
		{"unknown type over 64 KiB and a key", 0x22, derp.MaxPacketSize + derp.KeyLen + 1},
		{"unknown type of 8 MiB", 0x22, 8 << 20},
		{"Pong over 64 KiB and a key", derp.FramePong, derp.MaxPacketSize + derp.KeyLen + 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newPeer(t, relay)
			// The relay may close before it has taken all of the frame.
			_, _ = a.conn.Write(encode(tc.typ, make([]byte, tc.size)))
			a.wantClosed(t, answerLimit)
		})
	}
}

// However the stream is cut, frames mean the same: here into single bytes, each in a TLS record of its own.
func TestFramesInPieces(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	a, b := newPeer(t, relay), newPeer(t, relay)
	frames := bytes.Join([][]byte{
		encode(derp.FrameSendPacket, b.public().AppendTo(nil), []byte("first")),
		encode(0x20, []byte("of a type that nobody knows")),
		encode(derp.FrameSendPacket, b.public().AppendTo(nil), []byte("second")),
	}, nil)
	for i := range frames {
		if _, err := a.conn.Write(frames[i : i+1]); err != nil {
			t.Fatal(err)
		}
	}
	b.wantPacket(t, a.public(), "first")
	b.wantPacket(t, a.public(), "second")
}

// A frame whose end never comes is not delivered.
func TestTruncatedFrame(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	a, b := newPeer(t, relay), newPeer(t, relay)
	a.send(t, b.public(), "whole")
	b.wantPacket(t, a.public(), "whole")
	frame := encode(derp.FrameSendPacket, b.public().AppendTo(nil), bytes.Repeat([]byte("t"), 1000))
	if _, err := a.conn.Write(frame[:len(frame)-1]); err != nil {
		t.Fatal(err)
	}
	a.leave()
	b.wantGone(t, a.public(), derp.PeerGoneReasonDisconnected)
	b.wantNothing(t)
}

// Keys that no client can have are like any other that is not here, and so is the relay's own.
func TestDestinationsThatCannotBeHere(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{PrivateKey: key.NewNode()})
	for _, tc := range []struct {
		name string
		key  key.NodePublic
	}{
		{"zero", key.NodePublic{}},
		{"of order 1", key.NodePublicFromRaw32(mem.B(append([]byte{1}, make([]byte, 31)...)))},
		{"the relay's", relay.ReadKey(t).Public()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newPeer(t, relay)
			a.send(t, tc.key, "vanishes")
			a.wantNothing(t)
			a.send(t, tc.key, disco)
			a.wantGone(t, tc.key, derp.PeerGoneReasonNotHere)
		})
	}
}

// Whoever has the relay's own key is a client like any other.
func TestClientWithTheRelaysKey(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{PrivateKey: key.NewNode()})
	own, other := collect(login(t, relay, relay.ReadKey(t))), newPeer(t, relay)
	own.send(t, other.public(), "from the relay's key")
	other.wantPacket(t, own.public(), "from the relay's key")
	other.send(t, own.public(), "to the relay's key")
	own.wantPacket(t, other.public(), "to the relay's key")
}
