package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// meshLimit bounds the wait for something that may need a link to be dialled again: 5 to 6 s after it broke.
const meshLimit = 20 * time.Second

// pairs are the regions of two relays that are tried: two of the kind under test, and it and the other one.
func pairs() [][2]string {
	one, other := relaytest.UnderTest(), relaytest.Derper
	if one == relaytest.Derper {
		return [][2]string{{one, one}}
	}
	return [][2]string{{one, one}, {one, other}, {other, one}}
}

// Between two relays of one region, of every kind.
func TestMesh(t *testing.T) {
	for _, kinds := range pairs() {
		t.Run(kinds[0]+" and "+kinds[1], func(t *testing.T) {
			relays := relaytest.StartMesh(t, newMeshKey(t), kinds[0], kinds[1])
			a, b := relays[0], relays[1]
			wantLinked(t, a, b)
			for _, test := range []struct {
				name string
				run  func(t *testing.T, a, b *relaytest.Relay)
			}{
				{"packets", meshPackets},
				{"named clients", meshNamedClients},
				{"gone again", meshGoneAgain},
				{"brief visit", meshBriefVisit},
				{"client moves", meshClientMoves},
				{"fifty thousand", meshFiftyThousand},
				{"relay comes back", meshRelayComesBack},
			} {
				t.Run(test.name, func(t *testing.T) { test.run(t, a, b) })
			}
		})
	}
}

// wantLinked returns when each of two relays knows of the other's clients. One that was started before the
// other has to dial it twice.
func wantLinked(t testing.TB, a, b *relaytest.Relay) {
	t.Helper()
	here, there := newPeer(t, a), newPeer(t, b)
	settleWithin(t, meshLimit, here, there)
	settleWithin(t, meshLimit, there, here)
	here.leave()
	there.leave()
}

// settleWithin returns when packets of from reach to: settle for clients of two relays, the one of which has yet
// to hear of the other's.
func settleWithin(t testing.TB, limit time.Duration, from, to *peer) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		from.send(t, to.public(), probe)
		select {
		case m, ok := <-to.messages:
			if !ok {
				t.Fatal("the relay closed the connection")
			}
			if isProbe(m) {
				return
			}
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("packets did not get through within %v", limit)
		}
	}
}

// Clients of two relays of a region reach each other, and hear of each other's end.
func meshPackets(t *testing.T, a, b *relaytest.Relay) {
	here, there := newPeer(t, a), newPeer(t, b)
	settleWithin(t, answerLimit, here, there)
	settleWithin(t, answerLimit, there, here)
	for n := range 100 {
		data := fmt.Sprint(n, strings.Repeat("x", n*n))
		here.send(t, there.public(), data)
		there.wantPacket(t, here.public(), data)
		there.send(t, here.public(), data)
		here.wantPacket(t, there.public(), data)
	}
	here.send(t, there.public(), disco)
	there.wantPacket(t, here.public(), disco)
	stranger := key.NewNode().Public()
	here.send(t, stranger, disco)
	here.wantGone(t, stranger, derp.PeerGoneReasonNotHere)

	there.leave()
	here.wantGone(t, there.public(), derp.PeerGoneReasonDisconnected)
	here.wantNothing(t)
}

// The name that a client states does not hinder the relays, which tell each other.
func meshNamedClients(t *testing.T, a, b *relaytest.Relay) {
	named := loginOptions{appName: "some app"}
	here, there := loginWith(t, a, "", named), loginWith(t, b, "", named)
	settleWithin(t, answerLimit, here, there)
	settleWithin(t, answerLimit, there, here)
	there.leave()
	here.wantGone(t, there.public(), derp.PeerGoneReasonDisconnected)
}

// Each end of a peer behind another relay is news. (derper tells of it once.)
func meshGoneAgain(t *testing.T, a, b *relaytest.Relay) {
	if a.Stock {
		t.Skip("derper reports a key once to a connection")
	}
	here, private := newPeer(t, a), key.NewNode()
	settleWithin(t, answerLimit, newPeer(t, b), here)
	for range 50 {
		there := collect(login(t, b, private))
		there.send(t, here.public(), "hello")
		here.wantPacket(t, private.Public(), "hello")
		there.leave()
		here.wantGone(t, private.Public(), derp.PeerGoneReasonDisconnected)
	}
}

// One packet is enough to be told of its sender's end, however soon that comes.
func meshBriefVisit(t *testing.T, a, b *relaytest.Relay) {
	here := newPeer(t, a)
	settleWithin(t, answerLimit, newPeer(t, b), here)
	for range 20 {
		there := newPeer(t, b)
		there.send(t, here.public(), "hello, goodbye")
		here.wantPacket(t, there.public(), "hello, goodbye")
		there.leave()
		here.wantGone(t, there.public(), derp.PeerGoneReasonDisconnected)
	}
}

// A client that moves from relay to relay is reached where it is.
func meshClientMoves(t *testing.T, a, b *relaytest.Relay) {
	here, private := newPeer(t, a), key.NewNode()
	settleWithin(t, answerLimit, newPeer(t, b), here)
	var before *peer
	for round := range 6 {
		at := []*relaytest.Relay{b, a}[round%2]
		now := collect(login(t, at, private))
		if before != nil {
			before.leave()
		}
		settleWithin(t, answerLimit, here, now)
		now.send(t, here.public(), "moved")
		for {
			// Where the old connection was the last one of its key for a moment, its end is told.
			if m := here.next(t); m != (derp.PeerGoneMessage{Peer: private.Public()}) {
				packet, ok := m.(derp.ReceivedPacket)
				if !ok || string(packet.Data) != "moved" {
					t.Fatalf("got %T %+v, want a packet", m, m)
				}
				break
			}
		}
		before = now
	}
}

// A relay of the region that is killed takes its clients with it, and is found again when it is back.
func meshRelayComesBack(t *testing.T, a, b *relaytest.Relay) {
	here, there := newPeer(t, a), newPeer(t, b)
	settleWithin(t, meshLimit, there, here)
	settleWithin(t, meshLimit, here, there)
	b.Kill(t)
	here.wantGone(t, there.public(), derp.PeerGoneReasonDisconnected)
	moved := collect(login(t, a, there.private))
	settleWithin(t, answerLimit, here, moved)

	b.Launch(t)
	back := collect(login(t, b, there.private))
	moved.leave()
	settleWithin(t, meshLimit, here, back)
	settleWithin(t, meshLimit, back, here)
}

// While the reader keeps up, nothing is lost, exchanged or changed on the way from relay to relay.
func meshFiftyThousand(t *testing.T, a, b *relaytest.Relay) {
	const packets = 50_000
	from, to := newPeer(t, a), login(t, b, key.NewNode())
	wantKnown(t, from, to)
	setDeadline(t, from.conn, time.Minute)
	setDeadline(t, to.conn, time.Minute)
	start := time.Now()
	total := wantStream(t, a.Stock || b.Stock, from, to, packets, derp.MaxPacketSize)
	t.Logf("%d packets, %d MB in %v", packets, total/1_000_000, time.Since(start).Round(time.Millisecond))
}

// wantKnown returns when the relay of from knows where to is, and to has read everything that was sent to find
// that out.
func wantKnown(t testing.TB, from, to *peer) {
	t.Helper()
	const last = "that was the last one"
	found, done := make(chan struct{}, 1), make(chan error, 1)
	go func() {
		for {
			m, err := to.Recv()
			if err != nil {
				done <- err
				return
			}
			switch packet, _ := m.(derp.ReceivedPacket); string(packet.Data) {
			case probe:
				select {
				case found <- struct{}{}:
				default:
				}
			case last:
				done <- nil
				return
			}
		}
	}()
	eventually(t, answerLimit, "the reader is known", func() bool {
		from.send(t, to.public(), probe)
		return len(found) > 0
	})
	from.send(t, to.public(), last)
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(answerLimit):
		t.Fatal("the last packet has not come")
	}
}

// A packet goes over one link at most: what came from a relay is never sent on to a third.
func TestMeshOneHop(t *testing.T) {
	meshKey := newMeshKey(t)
	relays := relaytest.StartMesh(t, meshKey, relaytest.UnderTest(), relaytest.UnderTest())
	here, there := newPeer(t, relays[0]), newPeer(t, relays[1])
	settleWithin(t, meshLimit, here, there)
	link := loginWith(t, relays[0], meshKey, loginOptions{})
	if err := link.ForwardPacket(here.public(), there.public(), derp.LoanBytes([]byte(disco))); err != nil {
		t.Fatal(err)
	}
	link.wantGone(t, there.public(), derp.PeerGoneReasonNotHere)
	there.wantNothing(t)
}

// Packets and announcements come on different connections. Who has heard from a key before it was announced is
// told of its end all the same, each time.
func TestMeshLateAnnouncement(t *testing.T) {
	meshKey := newMeshKey(t)
	relays := relaytest.StartMesh(t, meshKey, relaytest.UnderTest(), relaytest.UnderTest())
	a, b := relays[0], relays[1]
	wantLinked(t, a, b)
	here, late := newPeer(t, a), key.NewNode()
	link := loginWith(t, a, meshKey, loginOptions{})
	for range 3 {
		if err := link.ForwardPacket(late.Public(), here.public(), derp.LoanBytes([]byte("hello"))); err != nil {
			t.Fatal(err)
		}
		here.wantPacket(t, late.Public(), "hello")
		there := collect(login(t, b, late))
		settleWithin(t, answerLimit, here, there)
		there.leave()
		here.wantGone(t, late.Public(), derp.PeerGoneReasonDisconnected)
		if a.Stock {
			break // derper reports a key once to a connection
		}
	}
}

// A key on two other relays is reached on the first, and on the second when it has left the first; one that is
// here, too, is reached here. No packet is lost or doubled when the key has not moved.
func TestMeshKeyOnTwoOtherRelays(t *testing.T) {
	kind := relaytest.UnderTest()
	relays := relaytest.StartMesh(t, newMeshKey(t), kind, kind, kind)
	a, b, c := relays[0], relays[1], relays[2]
	wantLinked(t, a, b)
	wantLinked(t, a, c)
	here, private := newPeer(t, a), key.NewNode()
	all := func(to *peer, others ...*peer) {
		t.Helper()
		// One sender remembers ways, another has yet to find one.
		for _, from := range []*peer{here, newPeer(t, a)} {
			for n := range 100 {
				data := fmt.Sprint("packet ", n)
				from.send(t, private.Public(), data)
				to.wantPacket(t, from.public(), data)
			}
		}
		for _, other := range others {
			other.wantNothing(t)
		}
	}
	first := collect(login(t, b, private))
	settleWithin(t, answerLimit, here, first)
	wantLinked(t, b, c)
	// The relays' own keys are on two others as well.
	created, deleted := metric(t, a, "derp_multiforwarder_created"), metric(t, a, "derp_multiforwarder_deleted")
	second := collect(login(t, c, private))
	a.WaitMetric(t, "derp_multiforwarder_created", created+1)
	all(first, second)

	local := collect(login(t, a, private))
	settleWithin(t, answerLimit, here, local)
	all(local, first, second)
	local.leave()
	settleWithin(t, answerLimit, here, first)
	all(first, second)

	first.leave()
	a.WaitMetric(t, "derp_multiforwarder_deleted", deleted+1)
	settleWithin(t, answerLimit, here, second)
	all(second)
	second.leave()
	eventually(t, answerLimit, "the key is gone", func() bool {
		here.send(t, private.Public(), disco)
		select {
		case m := <-here.messages:
			return m == (derp.PeerGoneMessage{Peer: private.Public(), Reason: derp.PeerGoneReasonNotHere})
		case <-time.After(20 * time.Millisecond):
			return false
		}
	})
}

// metric is the sum of a metric's samples, or one of them, which must exist.
func metric(t *testing.T, r *relaytest.Relay, sample string) float64 {
	t.Helper()
	value, found := r.Metric(t, sample)
	if !found {
		t.Fatalf("no metric %s", sample)
	}
	return value
}
