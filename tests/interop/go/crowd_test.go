package interop

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

const (
	crowdSize   = 32
	crowdFlows  = 8 // from each peer, and to each
	flowPackets = 400
	flowWindow  = 3 // all flows to a peer and a few visitors' packets fit in derper's queue of 32
)

// flow is a sequence of packets from one peer to another, a few of them underway at a time.
type flow struct {
	from, to *peer
	underway chan struct{}
	received uint32
}

// flowPacket is packet n of every flow: its number, over and over, in a size that varies.
func flowPacket(n uint32) []byte {
	number := binary.BigEndian.AppendUint32(nil, n)
	return bytes.Repeat(number, 1+int(n*61)%350)
}

func (f *flow) send(ctx context.Context) error {
	for n := range uint32(flowPackets) {
		select {
		case f.underway <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := f.from.Send(f.to.public(), flowPacket(n)); err != nil {
			return err
		}
	}
	return nil
}

// receiveFlows reads p's packets until each of its flows is complete. What visitors cause is not looked at.
func receiveFlows(p *peer, flows map[key.NodePublic]*flow) error {
	for missing := len(flows) * flowPackets; missing > 0; {
		m, err := p.Recv()
		if err != nil {
			return err
		}
		packet, ok := m.(derp.ReceivedPacket)
		if !ok {
			continue
		}
		f := flows[packet.Source]
		if f == nil {
			continue
		}
		if !bytes.Equal(packet.Data, flowPacket(f.received)) {
			return fmt.Errorf("%d bytes that are not packet %d of the flow", len(packet.Data), f.received)
		}
		f.received++
		missing--
		<-f.underway
	}
	return nil
}

// Many peers talk across the relay's threads while others come, send to them and go: each flow arrives whole and in
// order.
func TestCrowd(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	peers := make([]*peer, crowdSize)
	for i := range peers {
		peers[i] = login(t, relay, key.NewNode())
		setDeadline(t, peers[i].conn, 30*time.Second)
	}
	talk, ctx := errgroup.WithContext(t.Context())
	context.AfterFunc(ctx, func() {
		for _, p := range peers {
			p.leave()
		}
	})
	for i, to := range peers {
		flows := make(map[key.NodePublic]*flow)
		for j := range crowdFlows {
			from := peers[(i+j+1)%crowdSize]
			f := &flow{from: from, to: to, underway: make(chan struct{}, flowWindow)}
			flows[from.public()] = f
			talk.Go(func() error { return f.send(ctx) })
		}
		talk.Go(func() error { return receiveFlows(to, flows) })
	}
	ended := make(chan error, 1)
	go func() { ended <- talk.Wait() }()
	for visitors := 0; ; visitors++ {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d packets, %d visitors", crowdSize*crowdFlows*flowPackets, visitors)
			return
		default:
		}
		visitor := newPeer(t, relay)
		visitor.send(t, peers[visitors%crowdSize].public(), "I was here")
		visitor.send(t, visitor.public(), "hello")
		visitor.wantPacket(t, visitor.public(), "hello")
		visitor.leave()
	}
}
