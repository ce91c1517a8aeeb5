// Package relaytest starts a relay as a process of its own, the way an operator does: a configuration file,
// a certificate, a key file. The tests know the relay only by what it writes to its sockets and files.
//
// TOWPATH_RELAY names the binary. With TOWPATH_RELAY_KIND=derper it is stock derper instead, which proves
// that a test asks for what the protocol really is; [Relay.Stock] tells the two apart where ours differs on
// purpose.
package relaytest

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// RegionID is the region of every relay under test, in the range for self-hosters.
const RegionID = 900

const (
	startLimit = 10 * time.Second
	stopLimit  = 5 * time.Second
)

// Options say what a test needs other than a relay on loopback with a fresh key.
type Options struct {
	// Host is the relay's IP address: its host name, its certificate's subject, and what it listens on.
	// Empty means 127.0.0.1.
	Host string
	// ListenSTUN is the address the STUN server binds. Empty means Host.
	ListenSTUN string
	// AlternateSTUN is the second address of the STUN server, of the same family. Empty means none. Ours only.
	AlternateSTUN string
	// STUNSettings are lines of the configuration file's [stun] besides. Ours only.
	STUNSettings string
	// STUNOnly leaves out everything but STUN. Ours only.
	STUNOnly bool
	// Kind is Towpath or Derper, whatever TOWPATH_RELAY_KIND says. Empty means that.
	Kind string
	// PrivateKey is written to the key file before the relay starts. A zero key leaves the file out, and
	// the relay has to make it.
	PrivateKey key.NodePrivate
	// SelfSigned leaves the certificate to the relay. Ours only.
	SelfSigned bool
	// VerifyURL is asked about each client. Empty means a backend that allows all of them, unless there is a TailscaledSocket.
	VerifyURL string
	// TailscaledSocket is where the local tailscaled is asked about each client. Where VerifyURL is there, too, both must allow.
	TailscaledSocket string
	// RefuseAppNames are applications whose clients are refused.
	RefuseAppNames []string
	// FailOpen admits clients that are not known while VerifyURL does not answer.
	FailOpen bool
	// Settings are lines of the configuration file besides. Ours only.
	Settings string
	// Proxies are the addresses from which the plain listener takes connections. Empty means loopback.
	Proxies []string
	// Home is what / shows, in derper's terms: empty for the page, "blank", or a URL.
	Home string
	// Port80 is the port of the listener that leads to HTTPS. Zero means one that is free.
	Port80 uint16
	// BootstrapDNS and UnpublishedDNS are the names of /bootstrap-dns.
	BootstrapDNS, UnpublishedDNS []string
}

// Relay is a running relay.
type Relay struct {
	// Addr is the TLS address, STUN the UDP port of the same host. Plain is the address without TLS, which derper has
	// only instead of TLS; Port80 the one that leads to HTTPS.
	Addr, Plain, Port80 netip.AddrPort
	STUN                netip.AddrPort
	// AlternateSTUN is the second address of the STUN server, with a port of its own.
	AlternateSTUN netip.AddrPort
	// Cert is the self-signed leaf certificate.
	Cert *x509.Certificate
	// KeyFile holds the relay's private key in derper's format.
	KeyFile string
	// ConfigFile is empty for derper, which has none.
	ConfigFile string
	// Stock says that this is derper.
	Stock bool

	binary string
	args   []string
	admin  netip.AddrPort
	env    []string
	log    string
	ready  func(context.Context) error
	proc   *exec.Cmd
	exited chan struct{}
}

// Start runs a relay until the end of the test. It returns when the relay serves.
func Start(t testing.TB, o Options) *Relay {
	t.Helper()
	r := Configure(t, o)
	r.Launch(t)
	return r
}

// Configure writes the relay's files without starting it.
func Configure(t testing.TB, o Options) *Relay {
	t.Helper()
	kind := cmp.Or(o.Kind, UnderTest())
	var binary string
	if kind == UnderTest() {
		binary = Binary(t)
	} else {
		binary = Foreign(t, kind)
	}
	host, err := netip.ParseAddr(cmp.Or(o.Host, "127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := &Relay{
		Addr:    netip.AddrPortFrom(host, freePort(t, "tcp", host)),
		Port80:  netip.AddrPortFrom(host, cmp.Or(o.Port80, freePort(t, "tcp", host))),
		STUN:    netip.AddrPortFrom(host, freePort(t, "udp", host)),
		KeyFile: filepath.Join(dir, "relay.key"),
		binary:  binary,
		log:     filepath.Join(dir, "relay.log"),
	}
	r.Cert = writeCertificate(t, dir, host)
	if !o.PrivateKey.IsZero() {
		r.writeKey(t, o.PrivateKey)
	}
	listenSTUN := r.STUN
	if o.ListenSTUN != "" {
		listenSTUN = netip.AddrPortFrom(netip.MustParseAddr(o.ListenSTUN), r.STUN.Port())
	}
	if o.TailscaledSocket == "" {
		o.VerifyURL = cmp.Or(o.VerifyURL, allowAll())
	}
	switch kind {
	case Towpath:
		r.configureTowpath(t, o, dir, listenSTUN)
	case Derper:
		r.configureDerper(t, dir, o)
	default:
		t.Fatalf("a relay of kind %q: want %s or %s", kind, Towpath, Derper)
	}
	return r
}

// The kinds of relays.
const (
	Towpath = "towpath"
	Derper  = "derper"
)

// UnderTest is the kind of the relay that TOWPATH_RELAY names.
func UnderTest() string { return cmp.Or(os.Getenv("TOWPATH_RELAY_KIND"), Towpath) }

// Binary is the relay under test.
func Binary(t testing.TB) string {
	t.Helper()
	binary := os.Getenv("TOWPATH_RELAY")
	if binary == "" {
		t.Fatal("TOWPATH_RELAY is not set: it names the relay binary under test")
	}
	if !filepath.IsAbs(binary) {
		t.Fatalf("TOWPATH_RELAY=%q: want an absolute path, tests run in the directory of their package", binary)
	}
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("TOWPATH_RELAY: %v", err)
	}
	return binary
}

func (r *Relay) configureTowpath(t testing.TB, o Options, dir string, stun netip.AddrPort) {
	loopback := netip.MustParseAddr("127.0.0.1")
	r.admin = netip.AddrPortFrom(loopback, freePort(t, "tcp", loopback))
	r.Plain = netip.AddrPortFrom(r.Addr.Addr(), freePort(t, "tcp", r.Addr.Addr()))
	settings := o.Settings
	if !o.SelfSigned {
		settings += fmt.Sprintf("\ncert = %q\nkey = %q", filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	}
	alternates := "[]"
	if o.AlternateSTUN != "" {
		second := netip.MustParseAddr(o.AlternateSTUN)
		r.AlternateSTUN = netip.AddrPortFrom(second, freePort(t, "udp", second))
		alternates = fmt.Sprintf("[%q]", r.AlternateSTUN)
	}
	r.ConfigFile = filepath.Join(dir, "relay.toml")
	config := fmt.Sprintf(`hostname = %q
%s
listen = %q
key_file = %q
%s

[stun]
listen = [%q]
alternate = %s
%s

[admin]
listen = %q

[bootstrap_dns]
names = %s
unpublished_names = %s

[http]
redirect_listen = %q
home = %q
`, r.Addr.Addr(), admission(o), r.Addr, r.KeyFile, settings, stun, alternates, o.STUNSettings, r.admin,
		list(o.BootstrapDNS), list(o.UnpublishedDNS), r.Port80, cmp.Or(o.Home, "page"))
	if r.Addr.Addr().IsLoopback() || len(o.Proxies) > 0 {
		config += fmt.Sprintf("listen = %q\nproxies = %s\n", r.Plain, list(o.Proxies))
	}
	if len(o.Proxies) > 0 {
		// The address of a client is told in the log only.
		config += "[log]\nlevel = \"debug\"\n"
	}
	r.args = []string{"--config", r.ConfigFile}
	if o.STUNOnly {
		from, to := strings.Index(config, "[stun]"), strings.Index(config, "[bootstrap_dns]")
		config = config[from:to]
		r.args = append(r.args, "--stun-only")
	}
	if err := os.WriteFile(r.ConfigFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	r.ready = func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("http://%s/readyz", r.admin), nil)
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", res.Status)
		}
		return nil
	}
}

// admission returns the settings of a relay that asks a backend which keys may use it.
func admission(o Options) string {
	unknown := "refuse"
	if o.FailOpen {
		unknown = "admit"
	}
	settings := fmt.Sprintf("confirm.unknown = %q", unknown)
	if o.VerifyURL != "" {
		settings += fmt.Sprintf("\nverify.url = %q", o.VerifyURL)
	}
	if o.TailscaledSocket != "" {
		settings += fmt.Sprintf("\ntailscaled.socket = %q", o.TailscaledSocket)
	}
	if o.VerifyURL != "" && o.TailscaledSocket != "" {
		settings += "\nrequire = [\"tailscaled\", \"verify_url\"]"
	}
	if len(o.RefuseAppNames) > 0 {
		settings += "\nlogin.refuse_app_names = " + list(o.RefuseAppNames)
	}
	return settings
}

// list writes a list of TOML.
func list(elements []string) string {
	quoted := make([]string, len(elements))
	for i, element := range elements {
		quoted[i] = fmt.Sprintf("%q", element)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// configureDerper relies on derper's manual mode, which reads HOSTNAME.crt and HOSTNAME.key. STUN is on
// the host of -a, so where the options want STUN on every address, TLS is there as well.
func (r *Relay) configureDerper(t testing.TB, dir string, o Options) {
	r.Stock = true
	host := r.Addr.Addr().String()
	for from, to := range map[string]string{"cert.pem": host + ".crt", "key.pem": host + ".key"} {
		if err := os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	listen := r.Addr
	if stun, err := netip.ParseAddr(o.ListenSTUN); err == nil && stun.IsUnspecified() {
		listen = netip.AddrPortFrom(stun, r.Addr.Port())
	}
	r.args = []string{
		"-c", r.KeyFile, "-hostname", host, "-certmode", "manual", "-certdir", dir,
		"-a", listen.String(), "-http-port", fmt.Sprint(r.Port80.Port()), "-home", o.Home,
		"-bootstrap-dns-names", strings.Join(o.BootstrapDNS, ","),
		"-unpublished-bootstrap-dns-names", strings.Join(o.UnpublishedDNS, ","),
		"-stun", "-stun-port", fmt.Sprint(r.STUN.Port()),
		"-verify-client-url", o.VerifyURL, fmt.Sprintf("-verify-client-url-fail-open=%t", o.FailOpen),
		fmt.Sprintf("-verify-clients=%t", o.TailscaledSocket != ""), "-socket", o.TailscaledSocket,
		"-disallow-app-names", strings.Join(o.RefuseAppNames, ","),
	}
	r.ready = func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", r.Addr.String())
		if err != nil {
			return err
		}
		return conn.Close()
	}
}

// Launch starts the configured relay and waits until it serves. The test's end stops it.
func (r *Relay) Launch(t testing.TB) {
	t.Helper()
	log, err := os.OpenFile(r.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	first := r.proc == nil
	proc := exec.Command(r.binary, r.args...)
	proc.Env = append(environment(), r.env...)
	proc.Stdout, proc.Stderr = log, log
	// No relay outlives the tests, whatever ends them.
	proc.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := proc.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		_ = proc.Wait()
		close(exited)
	}()
	r.proc, r.exited = proc, exited
	if first {
		t.Cleanup(func() { r.cleanUp(t) })
	}
	ctx, cancel := context.WithTimeout(t.Context(), startLimit)
	defer cancel()
	for {
		err := r.ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-exited:
			t.Fatalf("the relay exited at start: %v", proc.ProcessState)
		case <-ctx.Done():
			t.Fatalf("the relay was not ready within %v: %v", startLimit, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// environment is ours without what would configure the relay: its settings are in the file alone.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "TOWPATH_")
	})
}

// PID is the number of the relay's process.
func (r *Relay) PID() int { return r.proc.Process.Pid }

// Kill ends the relay as a crash would (SIGKILL) and waits until it is gone.
func (r *Relay) Kill(t testing.TB) {
	t.Helper()
	if err := r.proc.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-r.exited
}

func (r *Relay) cleanUp(t testing.TB) {
	select {
	case <-r.exited:
		t.Errorf("the relay had exited before the end of the test: %v", r.proc.ProcessState)
	default:
		_ = r.proc.Process.Signal(syscall.SIGTERM)
		select {
		case <-r.exited:
		case <-time.After(stopLimit):
			t.Errorf("the relay ignored SIGTERM for %v", stopLimit)
			_ = r.proc.Process.Kill()
			<-r.exited
		}
	}
	if t.Failed() {
		t.Logf("end of the relay's log:\n%s", Tail(r.log, 8<<10))
	}
}

// Pin is the certificate's fingerprint in the form of a DERP map's CertName.
func (r *Relay) Pin() string { return pin(r.Cert) }

// Region is the relay as the only node of a region, with its certificate pinned.
func (r *Relay) Region() *tailcfg.DERPRegion {
	host := r.Addr.Addr().String()
	node := &tailcfg.DERPNode{
		Name:     fmt.Sprintf("%da", RegionID),
		RegionID: RegionID,
		HostName: host,
		CertName: r.Pin(),
		IPv4:     host,
		IPv6:     "none",
		STUNPort: int(r.STUN.Port()),
		DERPPort: int(r.Addr.Port()),
	}
	return &tailcfg.DERPRegion{
		RegionID:   RegionID,
		RegionCode: "towpath",
		RegionName: "Towpath under test",
		Nodes:      []*tailcfg.DERPNode{node},
	}
}

// Map is a DERP map of that one region.
func (r *Relay) Map() *tailcfg.DERPMap {
	return &tailcfg.DERPMap{Regions: map[tailcfg.DERPRegionID]*tailcfg.DERPRegion{RegionID: r.Region()}}
}

// Log is the file that takes the relay's output.
func (r *Relay) Log() string { return r.log }

// Tail returns the last n bytes of a text file, from the start of a line.
func Tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if _, err := f.Seek(-n, io.SeekEnd); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err.Error()
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	text := string(b)
	if int64(len(b)) == n {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text
}

// ports hands out each port once: what is free when it is asked for may otherwise be handed out twice before a
// relay binds it. Those of the system's ephemeral range are not used, for any connection takes them.
var ports = struct {
	sync.Mutex
	next int
}{next: firstPort + rand.IntN(lastPort-firstPort)}

const firstPort, lastPort = 10_000, 32_000

// FreeAddress is an address of TCP on loopback that nothing has bound.
func FreeAddress(t testing.TB) netip.AddrPort {
	t.Helper()
	loopback := netip.MustParseAddr("127.0.0.1")
	return netip.AddrPortFrom(loopback, freePort(t, "tcp", loopback))
}

// freePort is a port of host that nothing has bound.
func freePort(t testing.TB, network string, host netip.Addr) uint16 {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range lastPort - firstPort {
		port := uint16(ports.next)
		if ports.next++; ports.next == lastPort {
			ports.next = firstPort
		}
		if isFree(t, network, netip.AddrPortFrom(host, port).String()) {
			return port
		}
	}
	t.Fatalf("no port of %s is free", host)
	return 0
}

func isFree(t testing.TB, network, address string) bool {
	t.Helper()
	var bound io.Closer
	var err error
	switch network {
	case "tcp":
		bound, err = net.Listen("tcp", address)
	case "udp":
		bound, err = net.ListenPacket("udp", address)
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	bound.Close()
	return true
}

// HeadscaleMap is the DERP map in the form of Headscale's derp.paths, as the relay itself prints it.
func (r *Relay) HeadscaleMap(t testing.TB) []byte {
	t.Helper()
	if r.Stock {
		node := r.Region().Nodes[0]
		return fmt.Appendf(nil, `regions:
  %[1]d:
    regionid: %[1]d
    regioncode: towpath
    regionname: Towpath under test
    nodes:
      - name: %[2]s
        regionid: %[1]d
        hostname: %[3]q
        certname: %[4]q
        ipv4: %[3]q
        ipv6: none
        derpport: %[5]d
        stunport: %[6]d
`, node.RegionID, node.Name, node.HostName, node.CertName, node.DERPPort, node.STUNPort)
	}
	derpmap := exec.Command(r.binary, "derpmap", "--config", r.ConfigFile, "--format", "headscale")
	derpmap.Env = environment()
	out, err := derpmap.Output()
	if err != nil {
		t.Fatalf("derpmap: %v", failure(err))
	}
	return out
}

// failure adds what a program wrote to standard error.
func failure(err error) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	return err
}

// Reconfigure replaces a line of the configuration file, which the next launch reads. Ours only.
func (r *Relay) Reconfigure(t testing.TB, line, by string) {
	t.Helper()
	text, err := os.ReadFile(r.ConfigFile)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), line+"\n", by+"\n", 1)
	if changed == string(text) {
		t.Fatalf("no line %q in\n%s", line, text)
	}
	if err := os.WriteFile(r.ConfigFile, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Forget removes what a relay that does not run has kept of the keys that it has admitted. Ours only.
func (r *Relay) Forget(t testing.TB) {
	t.Helper()
	if err := os.Remove(filepath.Join(filepath.Dir(r.KeyFile), "admitted-keys")); err != nil {
		t.Fatal(err)
	}
}
