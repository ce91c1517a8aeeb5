package tailnet

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"tailscale.com/net/stun"

	"towpath.invalid/interop/relaytest"
)

// A home behind a router, and the relay's host, which is where the test runs, on the other side of it. The home's IPv6
// is routed as it is.
const (
	home   = site("home")
	router = site("router")

	hostFirst, hostSecond = "198.51.100.1", "198.51.100.2"
	hostFirst6            = "2001:db8:1::1"
	hostSecond6           = "2001:db8:1::2"
	homeAddress6          = "2001:db8:2::2"
)

func layHome(t *testing.T) {
	t.Helper()
	for _, command := range []string{
		"link set lo up",
		"netns add home",
		"netns add router",
		"link add wan type veth peer name wan netns router",
		"link set wan up",
		"address add " + hostFirst + "/24 dev wan",
		"address add " + hostSecond + "/24 dev wan",
		"address add " + hostFirst6 + "/64 dev wan nodad",
		"address add " + hostSecond6 + "/64 dev wan nodad",
		"-n router link add lan type veth peer name eth0 netns home",
		"-n router link set wan up",
		"-n router link set lan up",
		"-n router address add 198.51.100.254/24 dev wan",
		"-n router address add 2001:db8:1::fe/64 dev wan nodad",
		"-n router address add 10.0.0.1/24 dev lan",
		"-n router address add 2001:db8:2::1/64 dev lan nodad",
		"-n home link set lo up",
		"-n home link set eth0 up",
		"-n home address add 10.0.0.2/24 dev eth0",
		"-n home address add " + homeAddress6 + "/64 dev eth0 nodad",
		"-n home route add default via 10.0.0.1",
		"-n home route add default via 2001:db8:2::1",
		"route add 2001:db8:2::/64 via 2001:db8:1::fe",
	} {
		ip(t, command)
	}
	for _, setting := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		output(t, router.command("sysctl", "-qw", setting))
	}
}

// output runs a program and returns what it prints.
func output(t *testing.T, command *exec.Cmd) string {
	t.Helper()
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// nat has the router translate by these nftables rules and no others.
func nat(t *testing.T, rules string) {
	t.Helper()
	load := router.command("nft", "-f", "-")
	load.Stdin = strings.NewReader("flush ruleset\n" + rules)
	output(t, load)
}

// coturn's program, by RFC 5780, and vovida's, by RFC 3489, find out through the relay what a NAT does, whose behaviour is
// known.
func TestNATDiscovery(t *testing.T) {
	layHome(t)
	const settings = "discovery_rate = 1000"
	relay := relaytest.Start(t, relaytest.Options{Host: hostFirst, AlternateSTUN: hostSecond, STUNSettings: settings})
	if relay.Stock {
		t.Skip("derper has no RFC 5780")
	}
	const table = "table ip nat { chain out { type nat hook postrouting priority 100; oifname wan %s; }; %s }"
	for _, tc := range []struct {
		name, rules, mapping, filtering, classic string
	}{
		{"ports kept", fmt.Sprintf(table, "masquerade", ""),
			"NAT with Endpoint Independent Mapping!", "NAT with Address and Port Dependent Filtering!",
			"Primary: Independent Mapping, Port Dependent Filter"},
		{"ports at random", fmt.Sprintf(table, "masquerade fully-random", ""),
			"NAT with Address and Port Dependent Mapping!", "NAT with Address and Port Dependent Filtering!",
			"Primary: Dependent Mapping"},
		{"everything let in", fmt.Sprintf(table, "masquerade",
			"chain in { type nat hook prerouting priority -100; iifname wan meta l4proto udp dnat to 10.0.0.2; };"),
			"NAT with Endpoint Independent Mapping!", "NAT with Endpoint Independent Filtering!",
			"Primary: Independent Mapping, Independent Filter"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			nat(t, tc.rules)
			port := fmt.Sprint(relay.STUN.Port())
			out := output(t, home.command("turnutils_natdiscovery", "-m", "-f", "-p", port, hostFirst))
			for _, want := range []string{tc.mapping, tc.filtering} {
				if !strings.Contains(out, want) {
					t.Errorf("there is no %q in\n%s", want, out)
				}
			}
			// The status of vovida's program is the kind of the NAT.
			classic, err := home.command("stun", net.JoinHostPort(hostFirst, port)).CombinedOutput()
			if !strings.Contains(string(classic), tc.classic) {
				t.Errorf("stun: %v: there is no %q in\n%s", err, tc.classic, classic)
			}
		})
	}

	t.Run("IPv6 without a NAT", func(t *testing.T) {
		relay := relaytest.Start(t, relaytest.Options{Host: hostFirst6, AlternateSTUN: hostSecond6, STUNSettings: settings})
		port := fmt.Sprint(relay.STUN.Port())
		discover := home.command("turnutils_natdiscovery", "-m", "-f", "-L", homeAddress6, "-p", port, hostFirst6)
		out := output(t, discover)
		for _, want := range []string{"No NAT! (Endpoint Independent Mapping)", "Endpoint Independent Filtering!"} {
			if !strings.Contains(out, want) {
				t.Errorf("there is no %q in\n%s", want, out)
			}
		}
	})

	// A connected socket hears nobody but whom it asks, and so does the router.
	t.Run("wildcards answer from the address asked", func(t *testing.T) {
		nat(t, fmt.Sprintf(table, "masquerade", ""))
		for wildcard, hosts := range map[string][]string{
			"0.0.0.0": {hostFirst, hostSecond},
			"::":      {hostFirst6, hostSecond6},
		} {
			relay := relaytest.Start(t, relaytest.Options{ListenSTUN: wildcard})
			for _, host := range hosts {
				server := netip.AddrPortFrom(netip.MustParseAddr(host), relay.STUN.Port())
				conn, err := home.dial("udp", server.String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if err := answers(conn); err != nil {
					t.Errorf("%v: %v", server, err)
				}
			}
		}
	})
}

// answers asks for an address and waits for the answer.
func answers(conn net.Conn) error {
	id := stun.NewTxID()
	if _, err := conn.Write(stun.Request(id)); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	b := make([]byte, 128)
	n, err := conn.Read(b)
	if err != nil {
		return err
	}
	if got, _, err := stun.ParseResponse(b[:n]); err != nil || got != id {
		return fmt.Errorf("answer %x: %v", b[:n], err)
	}
	return nil
}
