// Package tailnet runs real programs over the relay: Headscale, two stock tailscaled, curl, ssh and sshd, in
// network namespaces that see nothing else. The relay under test is the only one in their DERP map.
package tailnet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"towpath.invalid/interop/relaytest"
)

func TestTailnet(t *testing.T) {
	lay(t)
	relay := relaytest.Start(t, relaytest.Options{Host: hubAddress, VerifyURL: verifyURL, Settings: recheck})
	derpMap := filepath.Join(t.TempDir(), "derp.yaml")
	if err := os.WriteFile(derpMap, relay.HeadscaleMap(t), 0o600); err != nil {
		t.Fatal(err)
	}
	control := startHeadscale(t, derpMap)
	a, b := join(t, control)

	t.Run("relayed", func(t *testing.T) {
		wantPath(t, a, b, viaRelay)
		t.Run("by Headscale's leave", func(t *testing.T) { wantAsked(t, relay, "verify_url") })
		t.Run("curl by name", func(t *testing.T) { curlByName(t, a, b) })
		t.Run("ssh by name", func(t *testing.T) { sshByName(t, a, b) })
		t.Run("50 MB both ways", func(t *testing.T) { bulkBothWays(t, a, b) })
	})
	t.Run("direct", func(t *testing.T) {
		restart(t, anyPath, a, b)
		netcheck(t, a)
		wantPath(t, a, b, directly)
	})
	t.Run("relay restarted", func(t *testing.T) {
		restart(t, relayed, a, b)
		wantPath(t, a, b, viaRelay)
		trafficGoesOn(t, a, b, relay)
	})
	if relay.Stock {
		return // it asks once for each connection, and a tailscaled of its own version
	}
	t.Run("by the leave of a tailscaled", func(t *testing.T) { admittedByTailscaled(t, a, b, relay) })
	t.Run("a node is deleted", func(t *testing.T) {
		second := relaytest.Start(t, relaytest.Options{Host: hubAddress, VerifyURL: verifyURL, Settings: recheck})
		deletedNode(t, control, b, second)
	})
}

// path is what `tailscale ping` calls the way that a pong came.
type path string

const (
	viaRelay = path("via DERP(towpath)")
	directly = path("via 192.0.2.")
)

// wantPath pings until the path is the wanted one. A path through the relay must be the one of each pong.
func wantPath(t *testing.T, from, to *node, want path) {
	t.Helper()
	until(t, fmt.Sprintf("ping %s", want), startLimit, func() error {
		out, err := from.tailscale(t, "ping", "--c=1", "--until-direct=false", "--timeout=2s", string(to.site)).CombinedOutput()
		if strings.Contains(string(out), string(want)) {
			t.Logf("%s", strings.TrimSpace(string(out)))
			return nil
		}
		if want == viaRelay && strings.Contains(string(out), string(directly)) {
			t.Fatalf("not relayed: %s", out)
		}
		return fmt.Errorf("%w: %s", err, out)
	})
}

// netcheck proves the relay's STUN: the node learns its address from nobody else.
func netcheck(t *testing.T, n *node) {
	var report struct {
		UDP           bool
		GlobalV4      string
		PreferredDERP int
	}
	out := run(t, n.tailscale(t, "netcheck", "--format=json"))
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if !report.UDP || report.PreferredDERP != relaytest.RegionID || !strings.HasPrefix(report.GlobalV4, "192.0.2.11:") {
		t.Errorf("got %+v", report)
	}
}

func curlByName(t *testing.T, a, b *node) {
	const greeting = "hello through the relay"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, greeting)
	})}
	go server.Serve(b.listen(t, "127.0.0.1:3000"))
	defer server.Close()
	out := run(t, a.command("curl", "--silent", "--show-error", "--fail", "--max-time", "10",
		"--socks5-hostname", socksAddress, "http://"+string(b.site)+":3000/"))
	if out != greeting {
		t.Errorf("got %q, want %q", out, greeting)
	}
}

func sshByName(t *testing.T, a, b *node) {
	args := startSSHD(t, b.site)
	proxy := strings.Join(a.tailscale(t, "nc", "%h", "%p").Args, " ")
	args = append(args, "-o", "ProxyCommand="+proxy, "root@"+string(b.site), "tr a-z A-Z")
	ssh := a.command("ssh", args...)
	ssh.Stdin = strings.NewReader("hello through the relay")
	if out := run(t, ssh); out != "HELLO THROUGH THE RELAY" {
		t.Errorf("got %q", out)
	}
}

// bulkBothWays moves 50 MB each way at once over one connection.
func bulkBothWays(t *testing.T, a, b *node) {
	const size = 50_000_000
	listener := b.listen(t, "127.0.0.1:3001")
	accepted := make(chan result, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			accepted <- result{err: err}
			return
		}
		defer conn.Close()
		accepted <- exchange(conn, 2, size)
	}()
	began := time.Now()
	conn := a.dialThrough(t, net.JoinHostPort(string(b.site), "3001"))
	atA := exchange(conn, 1, size)
	atB := <-accepted
	if err := errors.Join(atA.err, atB.err); err != nil {
		t.Fatal(err)
	}
	if atA.received != atB.sent || atB.received != atA.sent {
		t.Error("the bytes received are not those sent")
	}
	took := time.Since(began)
	t.Logf("%v, %.0f Mbit/s each way", took.Round(time.Millisecond), size*8/took.Seconds()/1e6)
}

// result holds the SHA-256 digests of what one end of a connection sent and received.
type result struct {
	sent, received [sha256.Size]byte
	err            error
}

// exchange sends size bytes drawn from a seed and receives as many at the same time.
func exchange(conn net.Conn, seed byte, size int64) result {
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return result{err: err}
	}
	var r result
	sending := make(chan error, 1)
	go func() {
		digest := sha256.New()
		source := io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
		_, err := io.Copy(io.MultiWriter(conn, digest), source)
		digest.Sum(r.sent[:0])
		sending <- err
	}()
	digest := sha256.New()
	_, err := io.CopyN(digest, conn, size)
	digest.Sum(r.received[:0])
	r.err = errors.Join(err, <-sending)
	return r
}

// trafficGoesOn lets a send 50 packets a second to b, which echoes them, kills the relay and starts it again
// at once. Only a starts traffic: WireGuard initiations that cross would stop both sides for seconds, and that
// is no fault of a relay.
func trafficGoesOn(t *testing.T, a, b *node, relay *relaytest.Relay) {
	const interval, gapLimit = 20 * time.Millisecond, 5 * time.Second
	go echoPackets(b.listenPacket(t, "127.0.0.1:3002"))
	to := netip.AddrPortFrom(netip.MustParseAddr(b.address(t)), 3002)
	conn, err := associateUDP(a.site, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	echoes := make(chan echo, 1024)
	go sendPackets(ctx, conn, interval)
	go receivePackets(conn, echoes)

	last := steady(t, echoes)
	first, received := last.n, uint32(0)
	relay.Kill(t)
	relay.Launch(t)
	var gap time.Duration
	for observed := time.Now().Add(2 * time.Second); last.at.Before(observed); received++ {
		next := await(t, echoes, gapLimit+startLimit)
		gap = max(gap, next.at.Sub(last.at))
		last = next
	}
	t.Logf("longest silence %v; %d of %d packets lost", gap.Round(time.Millisecond), last.n-first-received, last.n-first)
	if gap > gapLimit {
		t.Errorf("the gap is over %v", gapLimit)
	}
	steady(t, echoes)
	wantPath(t, a, b, viaRelay)
}

// echo is the arrival of packet n's echo.
type echo struct {
	n  uint32
	at time.Time
}

func echoPackets(conn net.PacketConn) {
	b := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(b[:n], from)
	}
}

func sendPackets(ctx context.Context, conn net.Conn, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for n := uint32(0); ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			_, _ = conn.Write(binary.BigEndian.AppendUint32(nil, n))
		}
	}
}

func receivePackets(conn net.Conn, echoes chan<- echo) {
	b := make([]byte, 1500)
	for {
		n, err := conn.Read(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil && n == 4 {
			echoes <- echo{binary.BigEndian.Uint32(b), time.Now()}
		}
	}
}

// steady waits for a second's worth of echoes and returns the last.
func steady(t *testing.T, echoes <-chan echo) (last echo) {
	t.Helper()
	for range 50 {
		last = await(t, echoes, startLimit)
	}
	return last
}

func await(t *testing.T, echoes <-chan echo, limit time.Duration) echo {
	t.Helper()
	select {
	case e := <-echoes:
		return e
	case <-time.After(limit):
		t.Fatalf("no echo within %v", limit)
		return echo{}
	}
}
