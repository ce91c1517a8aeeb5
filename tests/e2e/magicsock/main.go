// Magicsock is a peer on Tailscale's own code for paths between peers, without the rest of tailscaled: its network map is made by hand,
// and its packets come from the test that has started it.
//
// It reads commands and writes events, each a JSON object on a line of its own. The first event has its keys.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"sync"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// Command is what the peer is to do. One field is set.
type Command struct {
	// Peer makes a node the one peer of the network map.
	Peer *PeerCommand `json:"peer"`
	// Send sends the packet with this number to the peer.
	Send *uint32 `json:"send"`
	// Ping asks the peer for an answer, as `tailscale ping` does.
	Ping bool `json:"ping"`
}

// PeerCommand is what a control server would say of a peer.
type PeerCommand struct {
	Key       key.NodePublic   `json:"key"`
	Disco     key.DiscoPublic  `json:"disco"`
	Region    int              `json:"region"`
	Endpoints []netip.AddrPort `json:"endpoints"`
}

// Event is what has happened. One field is set, or Key and Disco.
type Event struct {
	Key   string `json:"key,omitempty"`
	Disco string `json:"disco,omitempty"`
	// Home is the home region, to whose relay there is a connection now.
	Home int `json:"home,omitempty"`
	// Endpoints are the addresses at which the peer may be reached.
	Endpoints []string  `json:"endpoints,omitempty"`
	Received  *Received `json:"received,omitempty"`
	Path      *Path     `json:"path,omitempty"`
	Pong      *Pong     `json:"pong,omitempty"`
}

// Received is a packet from the peer.
type Received struct {
	Number uint32 `json:"number"`
	// Direct says that it came over UDP, and not over a relay.
	Direct bool `json:"direct"`
}

// Path is where packets for the peer go: to Address, or over a relay where that is empty.
type Path struct {
	Address string `json:"address"`
}

// Pong is the answer to a ping, from Address, or over the relay of Region.
type Pong struct {
	Address string  `json:"address"`
	Region  int     `json:"region"`
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error"`
}

// events writes events, from any goroutine.
type events struct {
	mu sync.Mutex
	to *json.Encoder
}

func (e *events) emit(event Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.to.Encode(event); err != nil {
		// The test has ended.
		os.Exit(0)
	}
}

func main() {
	mapFile := flag.String("derpmap", "", "`file` with the DERP map, JSON")
	port := flag.Uint("port", 0, "UDP port; 0 for one that the system chooses")
	flag.Parse()
	log.SetPrefix("magicsock: ")
	log.SetFlags(log.Ltime | log.Lmicroseconds)
	if err := run(*mapFile, uint16(*port)); err != nil {
		log.Fatal(err)
	}
}

func run(mapFile string, port uint16) error {
	text, err := os.ReadFile(mapFile)
	if err != nil {
		return err
	}
	derpMap := new(tailcfg.DERPMap)
	if err := json.Unmarshal(text, derpMap); err != nil {
		return fmt.Errorf("%s: %w", mapFile, err)
	}
	out := &events{to: json.NewEncoder(os.Stdout)}
	node, err := start(derpMap, port, out)
	if err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var command Command
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			return fmt.Errorf("command %s: %w", lines.Bytes(), err)
		}
		if err := node.obey(command); err != nil {
			return fmt.Errorf("command %s: %w", lines.Bytes(), err)
		}
	}
	// The test has closed the pipe, or has ended.
	return nil
}
