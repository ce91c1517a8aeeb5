package interop

import (
	"bytes"
	"context"
	"testing"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// wrapped is the client that tailscaled uses: it dials by the DERP map, upgrades over HTTP, starts fast and answers
// pings.
type wrapped struct {
	*derphttp.Client
	messages chan derp.ReceivedMessage
}

func newWrapped(t *testing.T, relay *relaytest.Relay, private key.NodePrivate) *wrapped {
	t.Helper()
	client := derphttp.NewRegionClient(private, t.Logf, netmon.NewStatic(),
		func() *tailcfg.DERPRegion { return relay.Region() })
	t.Cleanup(func() { client.Close() })
	if err := client.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	w := &wrapped{client, make(chan derp.ReceivedMessage, 256)}
	go func() {
		defer close(w.messages)
		for {
			m, err := client.Recv()
			if err != nil {
				return
			}
			switch m := m.(type) {
			case derp.KeepAliveMessage, derp.ServerInfoMessage:
			case derp.ReceivedPacket:
				m.Data = bytes.Clone(m.Data)
				w.messages <- m
			default:
				w.messages <- m
			}
		}
	}()
	return w
}

// Of three clients on one relay each receives what is addressed to it, with its sender's key, and nothing else.
func TestPacketsReachOnlyTheirAddressee(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	var clients [3]*wrapped
	for i := range clients {
		clients[i] = newWrapped(t, relay, key.NewNode())
		// Its own packet comes back when the relay knows it.
		wantFrom(t, clients[i], clients[i], clients[i])
	}
	for _, from := range clients {
		for _, to := range clients {
			wantFrom(t, from, to, clients[:]...)
		}
	}
}

// wantFrom sends a packet and demands that it arrives where it belongs and that all others answer a ping first.
func wantFrom(t *testing.T, from, to *wrapped, all ...*wrapped) {
	t.Helper()
	data := []byte(from.SelfPublicKey().ShortString() + to.SelfPublicKey().ShortString())
	if err := from.Send(to.SelfPublicKey(), data); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	select {
	case m := <-to.messages:
		packet, ok := m.(derp.ReceivedPacket)
		if !ok || packet.Source != from.SelfPublicKey() || !bytes.Equal(packet.Data, data) {
			t.Fatalf("got %T %+v", m, m)
		}
	case <-ctx.Done():
		t.Fatal("no packet")
	}
	for _, other := range all {
		if err := other.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		select {
		case m := <-other.messages:
			if _, pong := m.(derp.PongMessage); !pong {
				t.Fatalf("somebody else got %T %+v", m, m)
			}
		default:
		}
	}
}

// The ping by which tailscaled asks, after the network has changed, whether its relay still hears it.
func TestPingOfStockClient(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	client := newWrapped(t, relay, key.NewNode())
	for range 3 {
		if err := client.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}
