package interop

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/net/netcheck"
	"tailscale.com/net/netmon"
	"tailscale.com/net/stun"
	"tailscale.com/tailcfg"

	"towpath.invalid/interop/relaytest"
)

// attribute is one of a STUN message.
type attribute struct {
	kind  uint16
	value string
}

const (
	magicCookie = 0x2112a442

	mappedAddress    = 0x0001
	changeRequest    = 0x0003
	messageIntegrity = 0x0008
	errorCode        = 0x0009
	unknownAttrs     = 0x000a
	xorMappedAddress = 0x0020
	changedAddress   = 0x0005
	priority         = 0x0024
	responsePort     = 0x0027
	foreign          = 0x7f01
	software         = 0x8022
	fingerprint      = 0x8028
	otherAddress     = 0x802c
)

// binding is a Binding request with these attributes.
func binding(cookie uint32, withFingerprint bool, attributes ...attribute) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 1, 0, 0}, cookie)
	b = append(b, "transaction."...)
	add := func(a attribute) {
		b = binary.BigEndian.AppendUint16(b, a.kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(a.value)))
		b = append(b, a.value...)
		b = append(b, make([]byte, -len(b)&3)...)
	}
	for _, a := range attributes {
		add(a)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20))
	if withFingerprint {
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)-20+8))
		sum := crc32.ChecksumIEEE(b) ^ 0x5354554e
		add(attribute{fingerprint, string(binary.BigEndian.AppendUint32(nil, sum))})
	}
	return b
}

// kinds are the types of a message's attributes.
func kinds(t *testing.T, message []byte) (kinds []uint16) {
	t.Helper()
	if len(message) < 20 || int(binary.BigEndian.Uint16(message[2:]))+20 != len(message) {
		t.Fatalf("%x is no STUN message", message)
	}
	for rest := message[20:]; len(rest) > 0; {
		kinds = append(kinds, binary.BigEndian.Uint16(rest))
		rest = rest[4+(int(binary.BigEndian.Uint16(rest[2:]))+3)&^3:]
	}
	return kinds
}

// connect returns a socket that hears nobody but the server.
func connect(t *testing.T, server netip.AddrPort) *net.UDPConn {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// answerTo sends a request and returns what comes back. UDP on loopback loses nothing that is answered.
func answerTo(t *testing.T, conn *net.UDPConn, request []byte) []byte {
	t.Helper()
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	if err := conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatalf("%x: %v", request, err)
	}
	return b[:n]
}

// bothFamilies are relays that take STUN over IPv4 and over IPv6.
func bothFamilies(t *testing.T, o relaytest.Options, test func(*testing.T, *relaytest.Relay, netip.AddrPort)) {
	for _, host := range []string{"127.0.0.1", "::1"} {
		t.Run(host, func(t *testing.T) {
			o.ListenSTUN = host
			relay := relaytest.Start(t, o)
			if relay.Stock {
				t.Skip("derper answers Tailscale's clients only")
			}
			test(t, relay, netip.AddrPortFrom(netip.MustParseAddr(host), relay.STUN.Port()))
		})
	}
}

// Clients of RFC 8489 and of RFC 3489 are answered in their own dialects, and what they must not be left in doubt of
// is refused.
func TestSTUNForEverybody(t *testing.T) {
	bothFamilies(t, relaytest.Options{}, func(t *testing.T, relay *relaytest.Relay, server netip.AddrPort) {
		conn := connect(t, server)
		for _, tc := range []struct {
			name    string
			request []byte
			class   byte
			want    []uint16
		}{
			{"bare", binding(magicCookie, false), 0x01, []uint16{xorMappedAddress}},
			{"software", binding(magicCookie, false, attribute{software, "another"}), 0x01, []uint16{xorMappedAddress}},
			{"fingerprint", binding(magicCookie, true), 0x01, []uint16{xorMappedAddress, fingerprint}},
			{"authenticated", binding(magicCookie, false, attribute{messageIntegrity, strings.Repeat("x", 20)}),
				0x01, []uint16{xorMappedAddress}},
			{"RFC 3489", binding(12345, false), 0x01, []uint16{mappedAddress}},
			{"unknown", binding(magicCookie, false, attribute{foreign, "1234"}), 0x11, []uint16{errorCode, unknownAttrs}},
			{"ICE", binding(magicCookie, false, attribute{priority, "1234"}), 0x01, []uint16{xorMappedAddress}},
			{"stuntman", binding(magicCookie, false, attribute{changeRequest, "\x00\x00\x00\x00"}), 0x01, []uint16{xorMappedAddress}},
			{"vovida", binding(12345, false, attribute{changeRequest, "\x00\x00\x00\x00"}), 0x01, []uint16{mappedAddress}},
			{"RFC 3489, a flag", binding(12345, false, attribute{changeRequest, "\x00\x00\x00\x02"}), 0x11, []uint16{errorCode, unknownAttrs}},
			{"RFC 5780", binding(magicCookie, false, attribute{changeRequest, "\x00\x00\x00\x06"}),
				0x11, []uint16{errorCode, unknownAttrs}},
		} {
			answer := answerTo(t, conn, tc.request)
			if got := kinds(t, answer); answer[1] != tc.class || !slices.Equal(got, tc.want) {
				t.Errorf("%s: class %#x with %#x, want %#x with %#x", tc.name, answer[1], got, tc.class, tc.want)
			}
			if string(answer[4:20]) != string(tc.request[4:20]) {
				t.Errorf("%s: another transaction: %x", tc.name, answer)
			}
			if answer[1] == 0x11 {
				continue
			}
			// The stock client's parser reads either address.
			binary.BigEndian.PutUint32(answer[4:], magicCookie)
			if _, mapped, err := stun.ParseResponse(answer); err != nil || mapped.String() != conn.LocalAddr().String() {
				t.Errorf("%s: mapped to %v (%v), want %v", tc.name, mapped, err, conn.LocalAddr())
			}
		}
	})
}

// No answer is longer on the wire than 1.5 times its request, 2.1 times where there is a second address.
func TestSTUNAmplification(t *testing.T) {
	bothFamilies(t, relaytest.Options{}, func(t *testing.T, relay *relaytest.Relay, server netip.AddrPort) {
		amplification(t, relay, server, 15)
	})
	// Loopback has one IPv6 address. no_answer_amplifies has more.
	t.Run("two addresses", func(t *testing.T) {
		relay := relaytest.Start(t, relaytest.Options{AlternateSTUN: "127.0.0.2", STUNSettings: "discovery_rate = 1000"})
		if relay.Stock {
			t.Skip("derper has no RFC 5780")
		}
		amplification(t, relay, relay.STUN, 21)
	})
}

// amplification sends requests of every kind. Tenths bound the answers that have an OTHER-ADDRESS or CHANGED-ADDRESS.
func amplification(t *testing.T, relay *relaytest.Relay, server netip.AddrPort, tenths int) {
	headers := 28
	if server.Addr().Is6() {
		headers = 48
	}
	conn := connect(t, server)
	ownPort := uint16(conn.LocalAddr().(*net.UDPAddr).Port)
	requests := [][]byte{stun.Request(stun.NewTxID()), binding(7, false), binding(7, true)}
	for _, attributes := range [][]attribute{
		nil,
		{{software, ""}},
		{{software, "tailnode"}},
		{{foreign, ""}},
		{{0x7001, ""}, {0x7002, ""}, {0x7003, ""}},
		{{changeRequest, "\x00\x00\x00\x00"}},
		{{messageIntegrity, strings.Repeat("x", 20)}},
		{{responsePort, string(binary.BigEndian.AppendUint16(nil, ownPort))}},
	} {
		requests = append(requests, binding(magicCookie, false, attributes...), binding(magicCookie, true, attributes...))
	}
	longer := 0
	for _, request := range requests {
		answer := answerTo(t, conn, request)
		bound := 15
		if got := kinds(t, answer); slices.Contains(got, otherAddress) || slices.Contains(got, changedAddress) {
			bound = tenths
			longer++
		}
		if got, asked := headers+len(answer), headers+len(request); 10*got > bound*asked {
			t.Errorf("%d bytes for %d: %x for %x", got, asked, answer, request)
		}
	}
	if (longer > 0) != (tenths > 15) {
		t.Errorf("%d answers of discovery", longer)
	}
	if sum, _ := relay.Metric(t, "towpath_stun_answers_total"); sum != float64(len(requests)) {
		t.Errorf("%v answers counted for %d", sum, len(requests))
	}
}

// A source that asks beyond its rate hears nothing more, another does, and the relay says how many it dropped.
func TestSTUNRateLimit(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{STUNSettings: "rate = 3"})
	if relay.Stock {
		t.Skip("derper has no limit")
	}
	greedy := connect(t, relay.STUN)
	const asked = 100
	for range asked {
		if _, err := greedy.Write(binding(magicCookie, false)); err != nil {
			t.Fatal(err)
		}
	}
	other, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 9)}, net.UDPAddrFromAddrPort(relay.STUN))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	answerTo(t, other, binding(magicCookie, false))
	// Sent before it, and so dealt with: three at once, and three for each second that has passed.
	dropped, _ := relay.Metric(t, "towpath_stun_unanswered_total")
	if answers, _ := relay.Metric(t, "towpath_stun_answers_total"); dropped < asked-20 || answers+dropped != asked+1 {
		t.Errorf("%v answered and %v dropped of %d", answers, dropped, asked+1)
	}
}

// coturn's client is told its address.
func TestStunclient(t *testing.T) {
	bothFamilies(t, relaytest.Options{}, func(t *testing.T, relay *relaytest.Relay, server netip.AddrPort) {
		out := run(t, "turnutils_stunclient", "-p", fmt.Sprint(server.Port()), server.Addr().String())
		if want := fmt.Sprintf("UDP reflexive addr: %s:", server.Addr()); !strings.Contains(out, want) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	})
}

// The STUN clients that Debian packages are told their address, each in its own dialect.
func TestSTUNClientsOfDebian(t *testing.T) {
	const python, scripts = "/usr/bin/python3", "../foreign/stun/"
	alternate := relaytest.Options{AlternateSTUN: "127.0.0.2", STUNSettings: "discovery_rate = 1000"}
	for _, tc := range []struct {
		name    string
		options relaytest.Options
		answer  string // of which at least one comes
		want    string
		program func(t *testing.T, relay *relaytest.Relay) []string
	}{
		{"vovida", relaytest.Options{}, "classic", "MappedAddress = 127.0.0.1:", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{"stun", relay.STUN.String(), "-v"}
		}},
		{"vovida, NAT", alternate, "discovery", "Primary: Open", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{"stun", relay.STUN.String(), "-v"}
		}},
		{"pion", relaytest.Options{}, "standard", "127.0.0.1:", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{relaytest.Foreign(t, "pion-stun-client"), relay.STUN.String()}
		}},
		{"pion, NAT", alternate, "discovery", "NAT filtering behavior: endpoint independent", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{relaytest.Foreign(t, "pion-stun-nat-behaviour"), "--server", relay.STUN.String()}
		}},
		{"ccding", alternate, "discovery", "External IP: 127.0.0.1", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{relaytest.Foreign(t, "ccding-go-stun"), "-s", relay.STUN.String()}
		}},
		{"aioice", relaytest.Options{}, "standard", "srflx 127.0.0.1 same port", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{python, scripts + "aioice_client.py", "127.0.0.1", fmt.Sprint(relay.STUN.Port())}
		}},
		{"libnice", relaytest.Options{}, "classic", "gathered", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{python, scripts + "libnice_client.py", "127.0.0.1", fmt.Sprint(relay.STUN.Port())}
		}},
		{"libnice, second address", alternate, "discovery", "gathered", func(t *testing.T, relay *relaytest.Relay) []string {
			return []string{python, scripts + "libnice_client.py", "127.0.0.1", fmt.Sprint(relay.STUN.Port())}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			relay := relaytest.Start(t, tc.options)
			if relay.Stock {
				t.Skip("derper answers Tailscale's clients only")
			}
			program := tc.program(t, relay)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			// What a status means differs: vovida's is the kind of the NAT.
			out, err := exec.CommandContext(ctx, program[0], program[1:]...).CombinedOutput()
			if !strings.Contains(string(out), tc.want) {
				t.Errorf("%v: %v: there is no %q in\n%s", program, err, tc.want, out)
			}
			answers := fmt.Sprintf("towpath_stun_answers_total{answer=%q}", tc.answer)
			if count, _ := relay.Metric(t, answers); count == 0 {
				t.Errorf("no %s answer", tc.answer)
			}
		})
	}
}

// run returns what a foreign program prints.
func run(t *testing.T, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), answerLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

// The stock network check measures a host that only does STUN, and tells its address from it.
func TestSTUNOnly(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{STUNOnly: true})
	if relay.Stock {
		t.Skip("derper is no such host")
	}
	client := &netcheck.Client{NetMon: netmon.NewStatic(), Logf: t.Logf, SkipExternalNetwork: true}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if err := client.Standalone(ctx, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	region := relay.Region()
	node := region.Nodes[0]
	region.Nodes = []*tailcfg.DERPNode{{
		Name: node.Name, RegionID: node.RegionID, HostName: node.HostName, IPv4: node.IPv4, IPv6: "none",
		STUNPort: node.STUNPort, STUNOnly: true,
	}}
	report, err := client.GetReport(ctx, &tailcfg.DERPMap{Regions: map[tailcfg.DERPRegionID]*tailcfg.DERPRegion{region.RegionID: region}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !report.UDP || report.GlobalV4.Addr() != netip.MustParseAddr("127.0.0.1") || report.RegionLatency[region.RegionID] <= 0 {
		t.Errorf("report %+v", report)
	}
	if conn, err := net.Dial("tcp", relay.Addr.String()); err == nil {
		conn.Close()
		t.Error("there is a TLS listener")
	}
}
