package relaytest

import (
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tailscale.com/types/key"
)

// Mesh says what a relay knows of the others of its region.
type Mesh struct {
	// Key is what the relays share, 64 hexadecimal digits.
	Key string
	// Second and Prober are further keys that ours takes.
	Second, Prober string
	// Sources narrows from where ours takes a mesh key.
	Sources []string
	// Peers are the relays to dial.
	Peers []Peer
}

// Peer is a relay to dial.
type Peer struct {
	// Addr is its address with port, Pin the hash of its certificate, Key its node key. derper knows the
	// first only, and trusts Certificate.
	Addr, Pin string
	Key       key.NodePublic
	// Certificate is in DER.
	Certificate []byte
}

// Peer is how another relay knows this one.
func (r *Relay) Peer(t testing.TB) Peer {
	return Peer{Addr: r.Addr.String(), Pin: r.Pin(), Key: r.ReadKey(t).Public(), Certificate: r.Cert.Raw}
}

// Join has a configured relay be in a mesh when it is launched.
func (r *Relay) Join(t testing.TB, m Mesh) {
	t.Helper()
	if r.Stock {
		r.joinDerper(t, m)
		return
	}
	var text strings.Builder
	text.WriteString("\n[mesh]\n")
	for name, secret := range map[string]string{"key": m.Key, "second_key": m.Second, "prober_key": m.Prober} {
		if secret != "" {
			fmt.Fprintf(&text, "%s_file = %q\n", name, r.secret(t, "mesh-"+name, secret))
		}
	}
	if len(m.Sources) > 0 {
		fmt.Fprintf(&text, "sources = [\"%s\"]\n", strings.Join(m.Sources, `", "`))
	}
	text.WriteString("peers = [\n")
	for _, p := range m.Peers {
		fmt.Fprintf(&text, "  \"%s %s %s\",\n", p.Addr, p.Key, p.Pin)
	}
	text.WriteString("]\n")
	file, err := os.OpenFile(r.ConfigFile, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := io.WriteString(file, text.String()); err != nil {
		t.Fatal(err)
	}
}

// joinDerper gives derper its flags. It verifies certificates by the roots of the system, which a variable
// replaces.
func (r *Relay) joinDerper(t testing.TB, m Mesh) {
	r.args = append(r.args, "-mesh-psk-file", r.secret(t, "mesh.key", m.Key))
	var hosts []string
	var roots []byte
	for _, p := range m.Peers {
		hosts = append(hosts, p.Addr)
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate})...)
	}
	if len(hosts) > 0 {
		r.args = append(r.args, "-mesh-with", strings.Join(hosts, ","))
		r.env = append(r.env, "SSL_CERT_FILE="+r.secret(t, "mesh-roots.pem", string(roots)))
	}
}

// secret writes a file beside the relay's others.
func (r *Relay) secret(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(r.KeyFile), name)
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// StartMesh runs one relay of each kind until the end of the test, in one mesh whose key is this.
func StartMesh(t testing.TB, meshKey string, kinds ...string) []*Relay {
	t.Helper()
	var relays []*Relay
	var peers []Peer
	for _, kind := range kinds {
		r := Configure(t, Options{Kind: kind, PrivateKey: key.NewNode()})
		relays = append(relays, r)
		peers = append(peers, r.Peer(t))
	}
	for _, r := range relays {
		// All have the same list, and each finds itself in it.
		r.Join(t, Mesh{Key: meshKey, Peers: peers})
	}
	for _, r := range relays {
		r.Launch(t)
	}
	return relays
}

// CertFiles are the relay's certificate and its key, in PEM.
func (r *Relay) CertFiles() (cert, private string) {
	dir := filepath.Dir(r.KeyFile)
	if r.Stock {
		host := filepath.Join(dir, r.Addr.Addr().String())
		return host + ".crt", host + ".key"
	}
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}
