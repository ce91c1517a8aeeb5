package interop

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"tailscale.com/net/netcheck"
	"tailscale.com/net/netmon"
	"tailscale.com/net/stun"

	"towpath.invalid/interop/relaytest"
)

// ask sends Binding requests from conn until an answer to one of them comes.
func ask(t *testing.T, conn net.PacketConn, server netip.AddrPort) (answer []byte, from net.Addr) {
	t.Helper()
	deadline := time.Now().Add(answerLimit)
	b := make([]byte, 1500)
	for time.Now().Before(deadline) {
		id := stun.NewTxID()
		if _, err := conn.WriteTo(stun.Request(id), net.UDPAddrFromAddrPort(server)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			continue
		}
		got, mapped, err := stun.ParseResponse(b[:n])
		if err != nil {
			t.Fatalf("answer %x: %v", b[:n], err)
		}
		if got != id {
			continue
		}
		if want := conn.LocalAddr().String(); mapped.String() != want {
			t.Fatalf("mapped address %v, want %v", mapped, want)
		}
		return b[:n], from
	}
	t.Fatalf("no answer within %v", answerLimit)
	return nil, nil
}

// An answer is one XOR-MAPPED-ADDRESS of the family that the client asked from.
func TestSTUN(t *testing.T) {
	const familyAt = 25
	for _, tc := range []struct {
		name, host string
		family     byte
		size       int
	}{
		{"IPv4", "127.0.0.1", 1, 32},
		{"IPv6", "::1", 2, 44},
	} {
		t.Run(tc.name, func(t *testing.T) {
			relay := relaytest.Start(t, relaytest.Options{ListenSTUN: tc.host})
			if relay.Stock && tc.family == 2 {
				t.Skip("derper has STUN where it has TLS, which is on IPv4 here")
			}
			conn, err := net.ListenPacket("udp", net.JoinHostPort(tc.host, "0"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			server := netip.AddrPortFrom(netip.MustParseAddr(tc.host), relay.STUN.Port())
			answer, _ := ask(t, conn, server)
			if len(answer) != tc.size || answer[familyAt] != tc.family {
				t.Errorf("%d bytes with family %d, want %d with %d: %x",
					len(answer), answer[familyAt], tc.size, tc.family, answer)
			}
		})
	}
}

// A server on a wildcard address answers from the address it was asked at: a client behind a NAT, or one that
// checks, gets no other answer.
func TestSTUNAnswersFromTheAddressAsked(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{ListenSTUN: "0.0.0.0"})
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.9.9.9"} {
		asked := netip.AddrPortFrom(netip.MustParseAddr(host), relay.STUN.Port())
		if _, from := ask(t, conn, asked); from.String() != asked.String() {
			t.Errorf("asked at %v, answered from %v", asked, from)
		}
	}
}

// The stock network check measures the relay over UDP, and over HTTPS where UDP is blocked, and makes it the
// home region.
func TestNetcheck(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct {
		name string
		opts *netcheck.GetReportOpts
		udp  bool
	}{
		{"UDP", nil, true},
		{"UDP blocked", &netcheck.GetReportOpts{OnlyTCP443: true}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client := &netcheck.Client{NetMon: netmon.NewStatic(), Logf: t.Logf, SkipExternalNetwork: true}
			if err := client.Standalone(ctx, "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
			report, err := client.GetReport(ctx, relay.Map(), tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			if report.UDP != tc.udp {
				t.Errorf("UDP: %v, want %v", report.UDP, tc.udp)
			}
			if report.PreferredDERP != relaytest.RegionID {
				t.Errorf("preferred region %d, want %d", report.PreferredDERP, relaytest.RegionID)
			}
			if latency := report.RegionLatency[relaytest.RegionID]; latency <= 0 || latency > time.Second {
				t.Errorf("region latency %v", latency)
			}
			if tc.udp && report.GlobalV4.Addr() != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("global IPv4 address %v", report.GlobalV4)
			}
		})
	}
}
