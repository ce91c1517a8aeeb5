package interop

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// A stock client trusts a self-signed relay by the fingerprint in the DERP map, whatever name it asks for,
// and nobody else's certificate.
func TestPinnedCertificate(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	other := strings.Repeat("0", 64)
	for _, tc := range []struct {
		name string
		edit func(*tailcfg.DERPNode)
		ok   bool
	}{
		{"without server name indication", func(*tailcfg.DERPNode) {}, true},
		{"with server name indication", func(n *tailcfg.DERPNode) { n.HostName = "localhost" }, true},
		{"another certificate", func(n *tailcfg.DERPNode) { n.CertName = "sha256-raw:" + other }, false},
		{"unpinned", func(n *tailcfg.DERPNode) { n.CertName = "" }, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			region := relay.Region()
			tc.edit(region.Nodes[0])
			client := derphttp.NewRegionClient(key.NewNode(), t.Logf, netmon.NewStatic(),
				func() *tailcfg.DERPRegion { return region })
			defer client.Close()
			err := client.Connect(t.Context())
			if (err == nil) != tc.ok {
				t.Fatalf("connect: %v, want success: %v", err, tc.ok)
			}
			if tc.ok {
				wantEcho(t, client)
			}
		})
	}
}

// wantEcho sends a packet to the client itself.
func wantEcho(t *testing.T, client *derphttp.Client) {
	t.Helper()
	if err := client.Send(client.SelfPublicKey(), []byte("echo")); err != nil {
		t.Fatal(err)
	}
	for {
		m, err := client.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if packet, ok := m.(derp.ReceivedPacket); ok {
			if string(packet.Data) != "echo" {
				t.Fatalf("got %q", packet.Data)
			}
			return
		}
	}
}

// heldConn keeps back what the relay sends from the moment that the client has sent application data. (TLS
// 1.3 disguises the client's Finished as such; nothing of the handshake is left to read then.)
type heldConn struct {
	net.Conn
	released chan struct{}

	mu   sync.Mutex
	held bool
}

func (c *heldConn) Write(b []byte) (int, error) {
	const header, applicationData = 5, 23
	for record := b; len(record) >= header; record = record[header+int(record[3])<<8+int(record[4]):] {
		if record[0] == applicationData {
			c.mu.Lock()
			c.held = true
			c.mu.Unlock()
		}
	}
	return c.Conn.Write(b)
}

func (c *heldConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	held := c.held
	c.mu.Unlock()
	if held {
		<-c.released
	}
	return n, err
}

// The stock client saves a round trip when it finds the relay's key in a certificate of a TLS 1.3
// handshake: it is connected before the relay has answered. Over TLS 1.2 it has to wait for 101 and
// ServerKey.
func TestFastStartOfStockClient(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{PrivateKey: key.NewNode()})
	roots := x509.NewCertPool()
	roots.AddCert(relay.Cert)
	for _, tc := range []struct {
		name    string
		version uint16
		fast    bool
	}{
		{"TLS 1.3", tls.VersionTLS13, true},
		{"TLS 1.2", tls.VersionTLS12, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			client, err := derphttp.NewClient(key.NewNode(), fmt.Sprintf("https://%s/derp", relay.Addr), t.Logf,
				netmon.NewStatic())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.TLSConfig = &tls.Config{RootCAs: roots, MaxVersion: tc.version}
			released := make(chan struct{})
			client.SetURLDialer(func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := new(net.Dialer).DialContext(ctx, network, addr)
				return &heldConn{Conn: conn, released: released}, err
			})
			connected := make(chan error, 1)
			go func() { connected <- client.Connect(t.Context()) }()
			if tc.fast {
				if err := within(connected, answerLimit); err != nil {
					t.Fatalf("no fast start: %v", err)
				}
				close(released)
			} else {
				if err := within(connected, 300*time.Millisecond); !errors.Is(err, errLate) {
					t.Fatalf("connected before the relay answered: %v", err)
				}
				close(released)
				if err := within(connected, answerLimit); err != nil {
					t.Fatal(err)
				}
			}
			if state, ok := client.TLSConnectionState(); !ok || state.Version != tc.version {
				t.Fatalf("TLS version %x, want %x", state.Version, tc.version)
			}
			if got, want := client.ServerPublicKey(), relay.ReadKey(t).Public(); got != want {
				t.Fatalf("relay's key is %v, want %v", got, want)
			}
			wantEcho(t, client)
		})
	}
}

var errLate = errors.New("not in time")

func within(result <-chan error, limit time.Duration) error {
	select {
	case err := <-result:
		return err
	case <-time.After(limit):
		return errLate
	}
}

// With Derp-Fast-Start the relay's first byte is the ServerKey frame, with no HTTP response before it, and
// the ClientInfo that follows the request in the same record is taken as such.
func TestFastStartOnTheWire(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	conn := dial(t, relay, tls.VersionTLS13)
	setDeadline(t, conn, answerLimit)
	server := relay.ReadKey(t).Public()

	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	request := strings.Replace(upgradeRequest(relay), "\r\n\r\n", "\r\nDerp-Fast-Start: 1\r\n\r\n", 1)
	stream.WriteString(request)
	client, err := derp.NewClient(key.NewNode(), conn, stream, t.Logf, derp.ServerPublicKey(server))
	if err != nil {
		t.Fatal(err)
	}
	greeting, err := stream.Reader.Peek(len(serverKeyFrame(server)))
	if err != nil {
		t.Fatal(err)
	}
	if string(greeting) != serverKeyFrame(server) {
		t.Fatalf("the first bytes are %q, want the ServerKey frame", greeting)
	}
	if m, err := client.Recv(); err != nil || m != (derp.ServerInfoMessage{}) {
		t.Fatalf("got %T %v, want ServerInfo", m, err)
	}
}

func serverKeyFrame(server key.NodePublic) string {
	return "\x01\x00\x00\x00\x28" + derp.Magic + string(server.AppendTo(nil))
}

// The relay adds one certificate at the end of its chain, whatever the TLS version. Clients on Windows and
// macOS need the dates and the empty BasicConstraints.
func TestMetaCertificate(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			state := dial(t, relay, version).ConnectionState()
			if state.Version != version {
				t.Fatalf("negotiated %s", tls.VersionName(state.Version))
			}
			chain := state.PeerCertificates
			if len(chain) != 2 || !chain[0].Equal(relay.Cert) {
				t.Fatalf("chain of %d certificates, want ours and the meta certificate", len(chain))
			}
			checkMetaCertificate(t, chain[1], relay.ReadKey(t).Public())
		})
	}
}

// The meta certificate is added to a copy of the chain: however many handshakes there are at a time, each sees one.
func TestMetaCertificateIsOneInEachHandshake(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	var handshakes errgroup.Group
	for range 32 {
		handshakes.Go(func() error {
			conn, err := tls.Dial("tcp", relay.Addr.String(), &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				return err
			}
			defer conn.Close()
			if chain := conn.ConnectionState().PeerCertificates; len(chain) != 2 {
				return fmt.Errorf("a chain of %d certificates", len(chain))
			}
			return nil
		})
	}
	if err := handshakes.Wait(); err != nil {
		t.Fatal(err)
	}
}

// A relay without a certificate makes one that a client can pin for ten years, and its meta certificate is good for as
// long: an end would be an outage at a time that nobody chose.
func TestSelfSignedCertificateLastsTenYears(t *testing.T) {
	relay := relaytest.Configure(t, relaytest.Options{SelfSigned: true})
	if relay.Stock {
		t.Skip("derper makes certificates for addresses only, for a year, and a meta certificate for 30 days")
	}
	relay.Launch(t)
	chain := dial(t, relay, tls.VersionTLS13).ConnectionState().PeerCertificates
	if len(chain) != 2 {
		t.Fatalf("a chain of %d certificates", len(chain))
	}
	for _, cert := range chain {
		almost := time.Now().AddDate(10, 0, -7)
		if cert.NotAfter.Before(almost) || cert.NotBefore.After(time.Now().AddDate(0, 0, -29)) {
			t.Errorf("%.20s: valid from %v to %v", cert.Subject, cert.NotBefore, cert.NotAfter)
		}
	}
	relay.Cert = chain[0]
	client := derphttp.NewRegionClient(key.NewNode(), t.Logf, netmon.NewStatic(),
		func() *tailcfg.DERPRegion { return relay.Region() })
	defer client.Close()
	if err := client.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantEcho(t, client)
}

func checkMetaCertificate(t *testing.T, meta *x509.Certificate, server key.NodePublic) {
	t.Helper()
	name := "derpkey" + server.UntypedHexString()
	if subject, issuer := meta.Subject.String(), meta.Issuer.String(); subject != "CN="+name || issuer != subject {
		t.Errorf("subject %s, issuer %s, want CN=%s", subject, issuer, name)
	}
	if meta.Version != 3 || meta.SerialNumber.Int64() != derp.ProtocolVersion {
		t.Errorf("version %d, serial number %v", meta.Version, meta.SerialNumber)
	}
	if _, ok := meta.PublicKey.(ed25519.PublicKey); !ok {
		t.Errorf("public key is a %T", meta.PublicKey)
	}
	if err := meta.CheckSignature(meta.SignatureAlgorithm, meta.RawTBSCertificate, meta.Signature); err != nil {
		t.Errorf("signature: %v", err)
	}
	const margin = 29 * 24 * time.Hour
	if now := time.Now(); now.Sub(meta.NotBefore) < margin || meta.NotAfter.Sub(now) < margin {
		t.Errorf("valid from %v to %v, want 30 days each way", meta.NotBefore, meta.NotAfter)
	}
	if len(meta.Extensions) != 1 {
		t.Fatalf("%d extensions, want one", len(meta.Extensions))
	}
	e := meta.Extensions[0]
	if e.Id.String() != "2.5.29.19" || !e.Critical || string(e.Value) != "\x30\x00" {
		t.Errorf("extension %v, critical %v, value %x; want an empty critical BasicConstraints", e.Id, e.Critical, e.Value)
	}
}

// Without fast start the response names the version and the key, and carries ServerKey in the same record.
func TestUpgradeResponse(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	server := relay.ReadKey(t).Public()
	conn := dial(t, relay, tls.VersionTLS13)
	setDeadline(t, conn, answerLimit)
	fmt.Fprint(conn, upgradeRequest(relay))
	record := make([]byte, 16<<10)
	n, err := conn.Read(record)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(record[:n]), "\r\n\r\n")
	if relay.Stock && rest == "" {
		// derper puts the frame into a record of its own.
		if n, err = conn.Read(record); err != nil {
			t.Fatal(err)
		}
		rest = string(record[:n])
	}
	if rest != serverKeyFrame(server) {
		t.Errorf("after the response %q, want the ServerKey frame", rest)
	}
	res, err := http.ReadResponse(bufio.NewReader(strings.NewReader(head+"\r\n\r\n")), nil)
	if err != nil {
		t.Fatal(err)
	}
	if status := "101 Switching Protocols"; res.Status != status {
		t.Errorf("status %q, want %q", res.Status, status)
	}
	for name, want := range map[string]string{
		"Upgrade":         "DERP",
		"Connection":      "Upgrade",
		"Derp-Version":    "2",
		"Derp-Public-Key": server.UntypedHexString(),
	} {
		if got := res.Header.Get(name); !strings.EqualFold(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// A key file written by derper is used as it is, so a relay that replaces a derper keeps its identity.
func TestKeyFileOfDerperIsKept(t *testing.T) {
	private := key.NewNode()
	relay := relaytest.Configure(t, relaytest.Options{PrivateKey: private})
	before, err := os.ReadFile(relay.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	relay.Launch(t)
	if got := login(t, relay, key.NewNode()).ServerPublicKey(); got != private.Public() {
		t.Errorf("the relay's key is %v, want %v", got, private.Public())
	}
	after, err := os.ReadFile(relay.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Error("the relay rewrote the key file")
	}
}

// A missing key file is made, in a form that derper reads, for the owner alone, and serves the next start.
func TestKeyFileIsMade(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	public := login(t, relay, key.NewNode()).ServerPublicKey()
	if got := relay.ReadKey(t).Public(); got != public {
		t.Errorf("the key file holds the key of %v, the relay is %v", got, public)
	}
	info, err := os.Stat(relay.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode().Perm())
	}
	text, err := os.ReadFile(relay.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]string
	if err := json.Unmarshal(text, &fields); err != nil || !strings.HasPrefix(fields["PrivateKey"], "privkey:") {
		t.Error("the key file is not in derper's form")
	}
	relay.Kill(t)
	relay.Launch(t)
	if got := login(t, relay, key.NewNode()).ServerPublicKey(); got != public {
		t.Errorf("another key after a restart: %v, want %v", got, public)
	}
}
