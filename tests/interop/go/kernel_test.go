package interop

import (
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// What waits in the kernel can be neither dropped nor overtaken, so the relay has it take 128 KiB of unsent bytes for a
// client, and a write more. (Derper lets it take megabytes.)
func TestUnsentBytesInTheKernel(t *testing.T) {
	const bound, oneWrite = 128 << 10, 128 << 10
	relay := relaytest.Start(t, relaytest.Options{Settings: `outbox.write_timeout = "60s"`})
	if relay.Stock {
		t.Skip("derper sets no bound")
	}
	from, deaf := newPeer(t, relay), login(t, relay, key.NewNode())
	socket := socketTo(t, relay, deaf.conn.LocalAddr().String())
	flood := strings.Repeat("f", 16<<10)
	deadline := time.Now().Add(answerLimit)
	for most := 0; ; {
		from.send(t, deaf.public(), flood)
		unsent, err := unix.IoctlGetInt(socket, unix.SIOCOUTQNSD)
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, unsent)
		if unsent > bound+oneWrite {
			t.Fatalf("the kernel holds %d unsent bytes", unsent)
		}
		// The flood is on for good when packets are dropped because they waited too long.
		if dropped, _ := relay.Metric(t, "derp_packets_dropped"); dropped > 100 && most >= bound/2 {
			t.Logf("at most %d unsent bytes", most)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("at most %d unsent bytes, and nothing dropped", most)
		}
	}
}

// socketTo is the relay's socket whose other end has this address.
func socketTo(t *testing.T, relay *relaytest.Relay, other string) int {
	t.Helper()
	pid, err := unix.PidfdOpen(relay.PID(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pid)
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(relay.PID()) + "/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		number, err := strconv.Atoi(entry.Name())
		if err != nil {
			t.Fatal(err)
		}
		socket, err := unix.PidfdGetfd(pid, number, 0)
		if err != nil {
			continue // closed meanwhile
		}
		if address, err := unix.Getpeername(socket); err == nil && addrPort(address).String() == other {
			t.Cleanup(func() { unix.Close(socket) })
			return socket
		}
		unix.Close(socket)
	}
	t.Fatalf("the relay has no socket to %s", other)
	return -1
}

func addrPort(address unix.Sockaddr) netip.AddrPort {
	switch address := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(address.Addr), uint16(address.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(address.Addr).Unmap(), uint16(address.Port))
	}
	return netip.AddrPort{}
}
