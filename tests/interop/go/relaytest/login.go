package relaytest

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// admitLimit bounds the wait for the relay's word on a login.
const admitLimit = 10 * time.Second

// Admits logs private in and says whether the relay has confirmed it, by ServerInfo, or has closed the connection.
func (r *Relay) Admits(t testing.TB, private key.NodePrivate) bool {
	t.Helper()
	conn, admitted := r.TryLogin(t, private)
	conn.Close()
	return admitted
}

// TryLogin is Admits with the connection, which the caller closes.
func (r *Relay) TryLogin(t testing.TB, private key.NodePrivate) (net.Conn, bool) {
	t.Helper()
	conn, err := tls.Dial("tcp", r.Addr.String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	admitted, err := admitted(conn, r, private)
	if err != nil {
		conn.Close()
		t.Fatalf("login: %v", err)
	}
	return conn, admitted
}

func admitted(conn net.Conn, r *Relay, private key.NodePrivate) (bool, error) {
	// The client sets deadlines of its own.
	late := time.AfterFunc(admitLimit, func() { conn.Close() })
	defer late.Stop()
	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	_, err := fmt.Fprintf(conn, "GET /derp HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: DERP\r\n\r\n", r.Addr)
	if err != nil {
		return false, err
	}
	res, err := http.ReadResponse(stream.Reader, nil)
	if err != nil {
		return false, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		return false, errors.New(res.Status)
	}
	client, err := derp.NewClient(private, conn, stream, func(string, ...any) {})
	if err != nil {
		return false, err
	}
	for {
		message, err := client.Recv()
		if err != nil && !late.Stop() {
			return false, errors.New("the relay neither confirms it nor closes the connection")
		}
		if err != nil {
			return false, nil
		}
		if _, confirmed := message.(derp.ServerInfoMessage); confirmed {
			return true, nil
		}
	}
}

// WaitClosed waits until the relay has closed a connection that was logged in.
func WaitClosed(t testing.TB, conn net.Conn, limit time.Duration) {
	t.Helper()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the relay has not closed the connection within %v", limit)
	}
}
