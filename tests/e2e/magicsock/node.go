package main

import (
	"encoding/binary"
	"errors"
	"log"
	"net/netip"
	"time"

	"github.com/tailscale/wireguard-go/conn"
	"tailscale.com/health"
	"tailscale.com/ipn/ipnstate"
	"tailscale.com/net/netmon"
	"tailscale.com/net/packet"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
	"tailscale.com/util/eventbus"
	"tailscale.com/util/usermetric"
	"tailscale.com/wgengine/magicsock"
)

const (
	// lookInterval is how often the path and the relay are looked at: magicsock tells no program of a change.
	lookInterval = 2 * time.Millisecond
	// packetSize is that of a WireGuard data packet with as much in it as a tunnel of 1,280 bytes carries.
	packetSize = 1280 + 32
	// messageTransport is the first byte of a WireGuard data packet. Its number is at numberAt.
	messageTransport, numberAt = 4, 4
	// headroom is what magicsock wants before a packet, for the header of a peer relay.
	headroom = packet.GeneveFixedHeaderLength
)

// node is a magicsock with one peer.
type node struct {
	magic  *magicsock.Conn
	health *health.Tracker
	out    *events
	key    key.NodePublic
	peer   tailcfg.NodeView
	to     conn.Endpoint
}

// start sets a magicsock up as wgengine does, with WireGuard's place taken by the functions of this file.
func start(derpMap *tailcfg.DERPMap, port uint16, out *events) (*node, error) {
	bus := eventbus.New()
	monitor, err := netmon.New(bus, log.Printf)
	if err != nil {
		return nil, err
	}
	private := key.NewNode()
	n := &node{health: health.NewTracker(bus), out: out, key: private.Public()}
	n.magic, err = magicsock.NewConn(magicsock.Options{
		EventBus:      bus,
		Logf:          log.Printf,
		Port:          port,
		EndpointsFunc: n.emitEndpoints,
		NetMon:        monitor,
		HealthTracker: n.health,
		Metrics:       new(usermetric.Registry),
		// The tests have no gateway that forwards ports.
		DisablePortMapper: true,
	})
	if err != nil {
		return nil, err
	}
	// What it sends and why is in its log.
	n.magic.SetDebugLoggingEnabled(true)
	monitor.Start()
	out.emit(Event{Key: n.key.String(), Disco: n.magic.DiscoPublicKey().String()})
	receives, _, err := n.magic.Bind().Open(0)
	if err != nil {
		return nil, err
	}
	for i, receive := range receives {
		// The last one is that of the relays.
		go n.receive(receive, i < len(receives)-1)
	}
	homes := make(chan int, 1)
	n.magic.SetNetInfoCallback(func(info *tailcfg.NetInfo) { homes <- info.PreferredDERP })
	go n.watchHome(homes)
	n.magic.SetDERPMap(derpMap)
	return n, n.magic.SetPrivateKey(private)
}

func (n *node) obey(command Command) error {
	switch {
	case command.Peer != nil:
		return n.setPeer(command.Peer)
	case n.to == nil:
		return errors.New("there is no peer")
	case command.Send != nil:
		buffer := make([]byte, headroom+packetSize)
		buffer[headroom] = messageTransport
		binary.BigEndian.PutUint32(buffer[headroom+numberAt:], *command.Send)
		if err := n.magic.Send([][]byte{buffer}, n.to, headroom); err != nil {
			log.Printf("packet %d is not sent: %v", *command.Send, err)
		}
	case command.Ping:
		n.magic.Ping(n.peer, new(ipnstate.PingResult), 0, n.emitPong)
	}
	return nil
}

// setPeer makes the network map.
func (n *node) setPeer(peer *PeerCommand) error {
	self := &tailcfg.Node{ID: 1, Key: n.key, Addresses: address(1), AllowedIPs: address(1)}
	n.peer = (&tailcfg.Node{
		ID: 2, Name: "peer", Key: peer.Key, DiscoKey: peer.Disco, HomeDERP: peer.Region, Endpoints: peer.Endpoints,
		Addresses: address(2), AllowedIPs: address(2),
	}).View()
	n.magic.SetNetworkMap(self.View(), []tailcfg.NodeView{n.peer})
	to, err := n.magic.ParseEndpoint(peer.Key.UntypedHexString())
	if err != nil {
		return err
	}
	n.to = to
	go n.watchPath(peer.Key)
	return nil
}

// address is the address in the tailnet of the node with this number.
func address(number byte) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{100, 64, 0, number}), 32)}
}

// receive emits the packets that come, as WireGuard would take them.
func (n *node) receive(receive conn.ReceiveFunc, isDirect bool) {
	count := n.magic.Bind().BatchSize()
	buffers, sizes, from := make([][]byte, count), make([]int, count), make([]conn.Endpoint, count)
	for i := range buffers {
		buffers[i] = make([]byte, 1<<16)
	}
	for {
		got, err := receive(buffers, sizes, from)
		if err != nil {
			log.Fatalf("receive: %v", err)
		}
		for i, size := range sizes[:got] {
			if size < numberAt+4 || buffers[i][0] != messageTransport {
				continue
			}
			number := binary.BigEndian.Uint32(buffers[i][numberAt:])
			n.out.emit(Event{Received: &Received{Number: number, Direct: isDirect}})
		}
	}
}

func (n *node) emitEndpoints(endpoints []tailcfg.Endpoint) {
	var addresses []string
	for _, endpoint := range endpoints {
		addresses = append(addresses, endpoint.Addr.String())
	}
	n.out.emit(Event{Endpoints: addresses})
}

func (n *node) emitPong(result *ipnstate.PingResult) {
	n.out.emit(Event{Pong: &Pong{
		Address: result.Endpoint, Region: result.DERPRegionID, Seconds: result.LatencySeconds, Error: result.Err,
	}})
}

// watchHome emits the home region once it is chosen and its relay has said something.
func (n *node) watchHome(homes <-chan int) {
	for home := range homes {
		for home != 0 && n.health.GetDERPRegionReceivedTime(home).IsZero() {
			time.Sleep(lookInterval)
		}
		if home != 0 {
			n.out.emit(Event{Home: home})
		}
	}
}

// watchPath emits where packets for the peer go, each time that this is another place.
func (n *node) watchPath(peer key.NodePublic) {
	last := ""
	for ; ; time.Sleep(lookInterval) {
		status := ipnstate.StatusBuilder{WantPeers: true}
		n.magic.UpdateStatus(&status)
		if now := status.Status().Peer[peer]; now != nil && now.CurAddr != last {
			last = now.CurAddr
			n.out.emit(Event{Path: &Path{Address: last}})
		}
	}
}
