package interop

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/health"
	"tailscale.com/tsconst"
	"tailscale.com/types/key"
	"tailscale.com/util/eventbus"

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

// A key that comes back, sends again and leaves again is reported again. (Stock derper reports each key
// once to a connection.)
func TestDisconnectedAgain(t *testing.T) {
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

// Of several connections the one that sends is the active one, whichever it is; when it leaves, the one that sent last
// before it takes over, and neither the newest nor the oldest.
func TestMostRecentSpeakerSucceeds(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	from, private := newPeer(t, relay), key.NewNode()
	var peers [4]*peer
	for i := range peers {
		peers[i] = collect(login(t, relay, private))
	}
	for _, i := range []int{3, 1, 2, 0} {
		speak(t, peers[i], from)
		settle(t, from, peers[i])
	}
	for _, step := range []struct{ leaver, successor int }{{0, 2}, {2, 1}, {1, 3}} {
		peers[step.leaver].leave()
		settle(t, from, peers[step.successor])
	}
	peers[3].leave()
	from.wantGone(t, private.Public(), derp.PeerGoneReasonDisconnected)
}

// speak sends a packet and returns when the relay has forwarded it.
func speak(t *testing.T, p, to *peer) {
	t.Helper()
	p.send(t, to.public(), "it is me")
	to.wantPacket(t, p.public(), "it is me")
}

// Two clients that use one key and take each other's packets are told so. The stock client shows it among its health
// warnings, and no longer when one of the two has gone. (Derper never says it.)
func TestContestedKey(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	from, private := newPeer(t, relay), key.NewNode()
	first, second := collect(login(t, relay, private)), collect(login(t, relay, private))
	// The second is the active one: the first takes its place, loses it, and takes it again.
	for _, p := range []*peer{first, second, first} {
		speak(t, p, from)
	}
	if relay.Stock {
		first.wantNothing(t)
		second.wantNothing(t)
		return
	}
	for _, p := range []*peer{first, second} {
		if warned := p.shownHealth(t); !strings.Contains(warned, "another device uses the same node key") {
			t.Fatalf("the stock client shows %q", warned)
		}
	}
	first.leave()
	if warned := second.shownHealth(t); warned != "" {
		t.Errorf("still shown: %q", warned)
	}
	second.wantNothing(t)
}

// A client that comes back before the relay has noticed that its old connection is dead is not told of a clone, though
// the last of what it sent comes late.
func TestReturningClientIsNotContested(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	from, private := newPeer(t, relay), key.NewNode()
	old, back := collect(login(t, relay, private)), collect(login(t, relay, private))
	for _, p := range []*peer{back, old, old, back, back} {
		speak(t, p, from)
	}
	back.wantNothing(t)
	old.leave()
	settle(t, from, back)
	back.wantNothing(t)
}

// shownHealth demands that the next message is one of health and hands it to what tailscaled hands it to. It returns the
// warning that is shown then.
func (p *peer) shownHealth(t *testing.T) string {
	t.Helper()
	message := p.next(t)
	m, ok := message.(derp.HealthMessage)
	if !ok {
		t.Fatalf("got %T %+v, want a Health message", message, message)
	}
	if p.tracker == nil {
		bus := eventbus.New()
		t.Cleanup(bus.Close)
		p.tracker = health.NewTracker(bus)
		p.tracker.SetIPNState("Running", true)
		p.tracker.GotStreamedMapResponse()
	}
	p.tracker.SetDERPRegionHealth(relaytest.RegionID, m.Problem)
	return p.tracker.CurrentState().Warnings[tsconst.HealthWarnableDERPRegionError].Text
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

// The gauges of connections and of homes follow who comes, who calls the relay its home, once or again, and who goes.
func TestGaugesFollowConnections(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	want := func(connections, homes float64) {
		t.Helper()
		relay.WaitMetric(t, "derp_current_connections", connections)
		relay.WaitMetric(t, "derp_current_home_connections", homes)
	}
	want(0, 0)
	a, b := newPeer(t, relay), newPeer(t, relay)
	want(2, 0)
	for _, step := range []struct {
		peer  *peer
		home  bool
		homes float64
	}{{a, true, 1}, {a, true, 1}, {b, true, 2}, {a, false, 1}, {a, false, 1}, {a, true, 2}} {
		if err := step.peer.NotePreferred(step.home); err != nil {
			t.Fatal(err)
		}
		step.peer.wantNothing(t)
		want(2, step.homes)
	}
	a.leave()
	want(1, 1)
	b.leave()
	want(0, 0)
}
