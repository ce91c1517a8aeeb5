package interop

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// newMeshKey returns a random mesh key as text.
func newMeshKey(t testing.TB) string {
	t.Helper()
	var b [32]byte
	if _, err := rand.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b[:])
}

// meshOfOne runs a relay that takes these keys and dials nobody.
func meshOfOne(t testing.TB, m relaytest.Mesh) *relaytest.Relay {
	t.Helper()
	r := relaytest.Configure(t, relaytest.Options{PrivateKey: key.NewNode()})
	r.Join(t, m)
	r.Launch(t)
	return r
}

// loginWith is login with a mesh key, and what else a client can say of itself, from any address of this host.
func loginWith(t testing.TB, r *relaytest.Relay, meshKey string, o loginOptions) *peer {
	t.Helper()
	p, _ := loginOnStream(t, r, meshKey, o)
	return collect(p)
}

// loginOnStream returns the bytes that follow the login as well; nobody collects them.
func loginOnStream(t testing.TB, r *relaytest.Relay, meshKey string, o loginOptions) (*peer, *bufio.Reader) {
	t.Helper()
	if o.private.IsZero() {
		o.private = key.NewNode()
	}
	dialer := &net.Dialer{Timeout: answerLimit}
	if o.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(o.from)}
	}
	conn, err := tls.DialWithDialer(dialer, "tcp", r.Addr.String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	setDeadline(t, conn, answerLimit)
	request := upgradeRequest(r)
	if o.notIdeal {
		request = strings.Replace(request, "\r\n\r\n", "\r\nIdeal-Node: 1a\r\n\r\n", 1)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	switching(t, stream.Reader)
	options := []derp.ClientOpt{derp.IsProber(o.prober), derp.AppName(o.appName)}
	if meshKey != "" {
		parsed, err := key.ParseDERPMesh(meshKey)
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, derp.MeshKey(parsed))
	}
	client, err := derp.NewClient(o.private, conn, stream, t.Logf, options...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Recv(); err != nil {
		t.Fatalf("ServerInfo: %v", err)
	}
	setDeadline(t, conn, 0)
	return &peer{Client: client, private: o.private, conn: conn}, stream.Reader
}

type loginOptions struct {
	private          key.NodePrivate
	prober, notIdeal bool
	from, appName    string
}

// watch has a peer told of who is there, and returns when it has been told of itself.
func (p *peer) watch(t testing.TB, flags derp.PeerPresentFlags) *peer {
	t.Helper()
	if err := p.WatchConnectionChanges(); err != nil {
		t.Fatal(err)
	}
	for {
		m, ok := p.next(t).(derp.PeerPresentMessage)
		if !ok {
			t.Fatalf("got %T, want PeerPresent", m)
		}
		if m.Key == p.public() {
			if m.Flags != flags {
				t.Fatalf("the watcher itself has flags %d, want %d", m.Flags, flags)
			}
			return p
		}
	}
}

// wantPresent demands that the next message announces this peer, at the address that it really has.
func (p *peer) wantPresent(t testing.TB, who *peer, flags derp.PeerPresentFlags) {
	t.Helper()
	address := netip.MustParseAddrPort(who.conn.LocalAddr().String())
	want := derp.PeerPresentMessage{Key: who.public(), IPPort: address, Flags: flags}
	if m := p.next(t); m != want {
		t.Fatalf("got %T %+v, want %+v", m, m, want)
	}
}

// A watcher hears of those who are there, of each connection that comes, and of each key that goes with its
// last one.
func TestWatch(t *testing.T) {
	meshKey := newMeshKey(t)
	relay := meshOfOne(t, relaytest.Mesh{Key: meshKey})
	early := newPeer(t, relay)
	watcher := loginWith(t, relay, meshKey, loginOptions{})
	if err := watcher.WatchConnectionChanges(); err != nil {
		t.Fatal(err)
	}
	present := map[key.NodePublic]derp.PeerPresentFlags{}
	for range 2 {
		m, ok := watcher.next(t).(derp.PeerPresentMessage)
		if !ok {
			t.Fatalf("got %T, want PeerPresent", m)
		}
		present[m.Key] = m.Flags
	}
	if present[early.public()] != derp.PeerPresentIsRegular || present[watcher.public()] != derp.PeerPresentIsMeshPeer {
		t.Fatalf("announced at first: %v", present)
	}

	late := newPeer(t, relay)
	watcher.wantPresent(t, late, derp.PeerPresentIsRegular)
	prober := loginWith(t, relay, "", loginOptions{prober: true, notIdeal: true})
	watcher.wantPresent(t, prober, derp.PeerPresentIsProber|derp.PeerPresentNotIdeal)
	other := loginWith(t, relay, meshKey, loginOptions{})
	watcher.wantPresent(t, other, derp.PeerPresentIsMeshPeer)
	named := loginWith(t, relay, "", loginOptions{appName: "some app"})
	if m, ok := watcher.next(t).(derp.PeerPresentMessage); !ok || m.Key != named.public() || m.AppName != "some app" {
		t.Fatalf("got %T %+v, want the name of the application", m, m)
	}

	again := collect(login(t, relay, late.private))
	watcher.wantPresent(t, again, derp.PeerPresentIsRegular)
	late.leave()
	early.leave()
	watcher.wantGone(t, early.public(), derp.PeerGoneReasonDisconnected)
	watcher.wantNothing(t)
	again.leave()
	watcher.wantGone(t, late.public(), derp.PeerGoneReasonDisconnected)
	watcher.wantNothing(t)
}

// A PeerPresent has 52 bytes and the name of the application, whatever upstream's comment says; of a watcher that is here
// and of a client that comes.
func TestPeerPresentOnTheWire(t *testing.T) {
	meshKey := newMeshKey(t)
	for _, name := range []string{"", "some app", strings.Repeat("x", 32)} {
		t.Run(name, func(t *testing.T) {
			relay := meshOfOne(t, relaytest.Mesh{Key: meshKey})
			watcher, stream := loginOnStream(t, relay, meshKey, loginOptions{appName: name})
			// The library leaves what it has read of ServerInfo until it reads on.
			if _, err := stream.Discard(stream.Buffered()); err != nil {
				t.Fatal(err)
			}
			watcher.frame(t, derp.FrameWatchConns, nil)
			setDeadline(t, watcher.conn, answerLimit)
			wantPresent := func(who *peer, flags derp.PeerPresentFlags) {
				t.Helper()
				got := make([]byte, derp.FrameHeaderLen+52+len(name))
				if _, err := io.ReadFull(stream, got); err != nil {
					t.Fatal(err)
				}
				address := netip.MustParseAddrPort(who.conn.LocalAddr().String())
				ip := address.Addr().As16()
				port := binary.BigEndian.AppendUint16(nil, address.Port())
				want := encode(derp.FramePeerPresent, who.public().AppendTo(nil), ip[:], port,
					[]byte{byte(flags), byte(len(name))}, []byte(name))
				if !bytes.Equal(got, want) {
					t.Fatalf("got  %x\nwant %x", got, want)
				}
			}
			wantPresent(watcher, derp.PeerPresentIsMeshPeer)
			wantPresent(loginWith(t, relay, "", loginOptions{appName: name}), derp.PeerPresentIsRegular)
		})
	}
}

// eventually waits until fact is one.
func eventually(t testing.TB, limit time.Duration, what string, fact func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !fact(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// ClosePeer closes every connection of a key, that of the one who asks included.
func TestClosePeer(t *testing.T) {
	meshKey := newMeshKey(t)
	relay := meshOfOne(t, relaytest.Mesh{Key: meshKey})
	closer := loginWith(t, relay, meshKey, loginOptions{})
	first, bystander := newPeer(t, relay), newPeer(t, relay)
	second := collect(login(t, relay, first.private))
	if err := closer.ClosePeer(first.public()); err != nil {
		t.Fatal(err)
	}
	first.wantClosed(t, answerLimit)
	second.wantClosed(t, answerLimit)
	bystander.wantNothing(t)
	if err := closer.ClosePeer(key.NewNode().Public()); err != nil {
		t.Fatal(err)
	}
	closer.wantNothing(t)
	if err := closer.ClosePeer(closer.public()); err != nil {
		t.Fatal(err)
	}
	closer.wantClosed(t, answerLimit)
}

// A mesh peer's packet reaches a client here with the sender that the peer names. For a key that is not here
// the peer is told so, if the packet is disco.
func TestForwardPacket(t *testing.T) {
	meshKey := newMeshKey(t)
	relay := meshOfOne(t, relaytest.Mesh{Key: meshKey})
	to, from := newPeer(t, relay), key.NewNode().Public()
	link := loginWith(t, relay, meshKey, loginOptions{})
	forward := func(to key.NodePublic, data string) {
		t.Helper()
		if err := link.ForwardPacket(from, to, derp.LoanBytes([]byte(data))); err != nil {
			t.Fatal(err)
		}
	}
	for _, data := range []string{"hello", "", disco, strings.Repeat("x", derp.MaxPacketSize)} {
		forward(to.public(), data)
		to.wantPacket(t, from, data)
	}
	stranger := key.NewNode().Public()
	forward(stranger, "nobody hears this")
	link.wantNothing(t)
	for range 6 {
		forward(stranger, disco)
	}
	for range 3 {
		link.wantGone(t, stranger, derp.PeerGoneReasonNotHere)
	}
	link.wantNothing(t)
	if !relay.Stock {
		const sample = `derp_packets_dropped{kind="disco",reason="unknown_dest_on_fwd"}`
		eventually(t, answerLimit, "drops are counted", func() bool { return metric(t, relay, sample) == 6 })
	}
}

// Who has no right to a frame of the mesh is closed, and is an ordinary client until then.
func TestMeshRights(t *testing.T) {
	meshKey, second, prober := newMeshKey(t), newMeshKey(t), newMeshKey(t)
	relay := meshOfOne(t, relaytest.Mesh{
		Key: meshKey, Second: second, Prober: prober, Sources: []string{"127.0.0.2", "10.0.0.0/8"},
	})
	frames := map[string][]byte{
		"watch":   encode(derp.FrameWatchConns),
		"forward": encode(derp.FrameForwardPacket, make([]byte, 64)),
		"close":   encode(derp.FrameClosePeer, make([]byte, 32)),
	}
	for _, tc := range []struct {
		name, key, from string
		allowed         []string
	}{
		{"mesh key", meshKey, "127.0.0.2", []string{"watch", "forward", "close"}},
		{"second key", second, "127.0.0.2", []string{"watch", "forward", "close"}},
		{"mesh key from elsewhere", meshKey, "127.0.0.1", nil},
		{"second key from elsewhere", second, "127.0.0.3", nil},
		{"prober's key", prober, "127.0.0.1", []string{"watch"}},
		{"wrong key", newMeshKey(t), "127.0.0.2", nil},
		{"zero key", strings.Repeat("0", 64), "127.0.0.2", nil},
		{"no key", "", "127.0.0.2", nil},
	} {
		if relay.Stock && (tc.key != meshKey || tc.from != "127.0.0.2") && tc.name != "wrong key" && tc.key != "" {
			continue // derper has one key, and takes it from everywhere
		}
		for name, frame := range frames {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				p := loginWith(t, relay, tc.key, loginOptions{from: tc.from})
				p.send(t, p.public(), "as everybody")
				p.wantPacket(t, p.public(), "as everybody")
				if _, err := p.conn.Write(frame); err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(tc.allowed, name) {
					p.wantClosed(t, answerLimit)
				} else if name == "watch" {
					if m, ok := p.next(t).(derp.PeerPresentMessage); !ok {
						t.Fatalf("got %T, want PeerPresent", m)
					}
				} else {
					p.wantNothing(t)
				}
			})
		}
	}
}

// A relay that finds itself at the other end learns nothing from itself.
func TestSelfConnectionIsNotTold(t *testing.T) {
	meshKey := newMeshKey(t)
	relay := meshOfOne(t, relaytest.Mesh{Key: meshKey})
	self := loginWith(t, relay, meshKey, loginOptions{private: relay.ReadKey(t)})
	if err := self.WatchConnectionChanges(); err != nil {
		t.Fatal(err)
	}
	newPeer(t, relay)
	self.wantNothing(t)
}
