//go:build js && wasm

// Page runs in a browser: the stock client, compiled for it, on each relay that its arguments name. It tells the server
// that it came from of every login, and sends each packet back to where it came from.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

func main() {
	report, relays := os.Args[1], os.Args[2:]
	failed := make(chan error)
	for _, url := range relays {
		go func() { failed <- fmt.Errorf("%s: %w", url, echo(report, url)) }()
	}
	tell(report, "failed", (<-failed).Error())
}

func echo(report, url string) error {
	client, err := derphttp.NewClient(key.NewNode(), url, log.Printf, netmon.NewStatic())
	if err != nil {
		return err
	}
	if err := client.Connect(context.Background()); err != nil {
		return err
	}
	for {
		m, err := client.Recv()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case derp.ServerInfoMessage:
			text, err := client.SelfPublicKey().MarshalText()
			if err != nil {
				return err
			}
			tell(report, "login", string(text))
		case derp.ReceivedPacket:
			if err := client.Send(m.Source, m.Data); err != nil {
				return err
			}
		}
	}
}

func tell(report, what, text string) {
	res, err := http.Post(report+what, "text/plain", strings.NewReader(text))
	if err != nil {
		log.Printf("cannot tell of %s: %v", what, err)
		return
	}
	res.Body.Close()
}
