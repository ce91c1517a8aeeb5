package interop

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// disco is a packet that a relay takes for a disco message: the magic and at least 62 bytes.
var disco = "TS\U0001f4ac" + strings.Repeat("d", 56)

// The sender of disco messages to a key that is not here is told so, 3 times in a burst and then once a
// second. Ordinary packets vanish.
func TestNotHere(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	stranger := key.NewNode().Public()
	for _, tc := range []struct {
		name   string
		packet string
		want   int
	}{
		{"disco", disco, 3},
		{"ordinary", strings.Repeat("o", 100), 0},
		{"too short for disco", disco[:61], 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const sent = 6
			a := newPeer(t, relay)
			frame := encode(derp.FrameSendPacket, stranger.AppendTo(nil), []byte(tc.packet))
			if _, err := a.conn.Write(bytes.Repeat(frame, sent)); err != nil {
				t.Fatal(err)
			}
			for range tc.want {
				a.wantGone(t, stranger, derp.PeerGoneReasonNotHere)
			}
			a.wantSilence(t, 300*time.Millisecond)
		})
	}
}

// wantSilence is for what has no order that a ping could prove.
func (p *peer) wantSilence(t testing.TB, during time.Duration) {
	t.Helper()
	p.wantNothing(t)
	select {
	case m, ok := <-p.messages:
		t.Fatalf("got %T %+v (open: %v), want nothing", m, m, ok)
	case <-time.After(during):
	}
}

// Exactly those that received from a key learn that it is gone.
func TestDisconnected(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	leaver, receiver, sender, bystander := newPeer(t, relay), newPeer(t, relay), newPeer(t, relay), newPeer(t, relay)
	leaver.send(t, receiver.public(), "hello")
	receiver.wantPacket(t, leaver.public(), "hello")
	sender.send(t, leaver.public(), "hello")
	leaver.wantPacket(t, sender.public(), "hello")

	leaver.leave()
	receiver.wantGone(t, leaver.public(), derp.PeerGoneReasonDisconnected)
	receiver.wantNothing(t)
	sender.wantNothing(t)
	bystander.wantNothing(t)
}

// A key that comes back, sends again and leaves again is reported again. (Stock derper reports each key
// once to a connection.)
func TestDisconnectedAgain(t *testing.T) {
// What a key sent last arrives before the word that it is gone. (Stock derper may exchange them, or never say that it is
// gone, because it notes who received when it writes.)
func TestLastPacketsBeforeDisconnected(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	if relay.Stock {
		t.Skip("derper writes packets and notices in any order")
	}
	receiver := newPeer(t, relay)
	for range 50 {
		leaver := newPeer(t, relay)
		for _, data := range []string{"first", disco, "last"} {
			leaver.send(t, receiver.public(), data)
		}
		leaver.leave()
		for range 3 {
			if m := receiver.next(t); !isPacketFrom(m, leaver.public()) {
				t.Fatalf("got %T %+v, want a packet", m, m)
			}
		}
		receiver.wantGone(t, leaver.public(), derp.PeerGoneReasonDisconnected)
	}
}

func isPacketFrom(m derp.ReceivedMessage, from key.NodePublic) bool {
	packet, ok := m.(derp.ReceivedPacket)
	return ok && packet.Source == from
}

	relay := relaytest.Start(t, relaytest.Options{})
	if relay.Stock {
		t.Skip("derper reports a key once to a connection")
	}
	receiver, private := newPeer(t, relay), key.NewNode()
	for range 3 {
		leaver := collect(login(t, relay, private))
		leaver.send(t, receiver.public(), "hello")
		receiver.wantPacket(t, private.Public(), "hello")
		leaver.leave()
		receiver.wantGone(t, private.Public(), derp.PeerGoneReasonDisconnected)
		receiver.wantNothing(t)
	}
}

// A key is gone when its last connection is.
func TestDisconnectedAfterLastDuplicate(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	receiver, private := newPeer(t, relay), key.NewNode()
	first, second := collect(login(t, relay, private)), collect(login(t, relay, private))
	// The last writer is the active one: packets reach the other when the relay has seen it leave.
	for _, p := range []*peer{second, first} {
		p.send(t, receiver.public(), "hello")
		receiver.wantPacket(t, private.Public(), "hello")
	}
	first.leave()
	settle(t, receiver, second)
	receiver.wantNothing(t)
	second.leave()
	receiver.wantGone(t, private.Public(), derp.PeerGoneReasonDisconnected)
}

// Of several connections of one key the newest gets the packets; any frame makes its sender the active one;
// when the active one leaves, the last sender of the others takes over.
func TestDuplicateConnections(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	from, private := newPeer(t, relay), key.NewNode()
	first := collect(login(t, relay, private))
	second := collect(login(t, relay, private))
	wantActive := func(active *peer, data string) {
		t.Helper()
		from.send(t, private.Public(), data)
		active.wantPacket(t, from.public(), data)
	}

	wantActive(second, "the newest is active")
	first.send(t, from.public(), "I am here")
	from.wantPacket(t, private.Public(), "I am here")
	wantActive(first, "the last writer is active")
	second.frame(t, 0x20, nil)
	settle(t, from, second)
	wantActive(second, "any frame counts, of an unknown type too")
	second.leave()
	settle(t, from, first)
	wantActive(first, "the one left is active")
}

// Of three connections none of which has sent, the oldest takes over when the newest leaves.
func TestSilentDuplicates(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	from, private := newPeer(t, relay), key.NewNode()
	oldest := collect(login(t, relay, private))
	middle := collect(login(t, relay, private))
	newest := collect(login(t, relay, private))
	from.send(t, private.Public(), "to the newest")
	newest.wantPacket(t, from.public(), "to the newest")

	newest.leave()
	settle(t, from, oldest)
	// The ping that proves middle's silence makes it the active one.
	middle.wantNothing(t)
	from.send(t, private.Public(), "to the middle")
	middle.wantPacket(t, from.public(), "to the middle")
}

// A peer that stops reading is closed after the write limit of some seconds, and holds nobody up until then.
func TestStalledReader(t *testing.T) {
	const evictionLimit, floodLimit = 8 * time.Second, 64 << 20
	relay := relaytest.Start(t, relaytest.Options{})
	from, bystander := newPeer(t, relay), newPeer(t, relay)
	stalled := login(t, relay, key.NewNode()) // nobody collects its messages
	stalled.send(t, from.public(), "so that you hear of my end")
	from.wantPacket(t, stalled.public(), "so that you hear of my end")

	flood := strings.Repeat("f", 16<<10)
	began := time.Now()
	for sent := 0; len(from.messages) == 0 && time.Since(began) < evictionLimit; sent += len(flood) {
		if sent < floodLimit {
			from.send(t, stalled.public(), flood)
		}
		before := time.Now()
		from.send(t, bystander.public(), "not held up")
		bystander.wantPacket(t, from.public(), "not held up")
		if took := time.Since(before); took > time.Second {
			t.Fatalf("a packet to somebody else took %v", took)
		}
	}
	from.wantGone(t, stalled.public(), derp.PeerGoneReasonDisconnected)
	t.Logf("closed after %v", time.Since(began).Round(time.Millisecond))
}
