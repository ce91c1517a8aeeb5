package tailnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"towpath.invalid/interop/relaytest"
)

// startLimit bounds how long a program takes to serve.
const startLimit = 20 * time.Second

// daemon is a program that runs until stop or the end of the test. Its output is shown when the test fails.
type daemon struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

func start(t *testing.T, name string, cmd *exec.Cmd) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), name+".log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	d := &daemon{cmd, make(chan struct{})}
	go func() {
		_ = cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(func() {
		d.stop()
		if t.Failed() {
			t.Logf("end of the log of %s:\n%s", name, relaytest.Tail(path, 6<<10))
		}
	})
	return d
}

func (d *daemon) stop() {
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(5 * time.Second):
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

// until calls f until it succeeds.
func until(t *testing.T, what string, limit time.Duration, f func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// run returns a program's output and fails the test when the program fails.
func run(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s%s", err, out, exit.Stderr)
	}
	if err != nil {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return string(out)
}

// headscale is a control server with one user.
type headscale struct {
	program, config string
	url             string
	authKey         string
}

// startHeadscale serves a tailnet whose only DERP region is in the file derpMap.
func startHeadscale(t *testing.T, derpMap string) headscale {
	t.Helper()
	dir := t.TempDir()
	h := headscale{
		program: relaytest.Foreign(t, "headscale"),
		config:  filepath.Join(dir, "config.yaml"),
		url:     "http://" + net.JoinHostPort(hubAddress, "8080"),
	}
	text := fmt.Sprintf(`
server_url: %[2]s
listen_addr: 0.0.0.0:8080
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
unix_socket: %[1]s/headscale.sock
noise: { private_key_path: %[1]s/noise.key }
database: { type: sqlite, sqlite: { path: %[1]s/db.sqlite } }
prefixes: { v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48" }
derp:
  server: { enabled: false }
  urls: []
  paths: [ %[3]s ]
  auto_update_enabled: false
dns: { magic_dns: true, base_domain: tailnet.test, override_local_dns: false, nameservers: { global: [] } }
disable_check_updates: true
logtail: { enabled: false }
log: { level: info, format: text }
`, dir, h.url, derpMap)
	if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "headscale", h.command("serve"))
	until(t, "headscale", startLimit, func() error {
		res, err := http.Get(h.url + "/health")
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	})
	run(t, h.command("users", "create", "tester"))
	out := run(t, h.command("preauthkeys", "create", "--user", "1", "--reusable", "-o", "json"))
	var created struct{ Key string }
	if err := json.Unmarshal([]byte(out), &created); err != nil || created.Key == "" {
		t.Fatalf("no key in %q: %v", out, err)
	}
	h.authKey = created.Key
	return h
}

// node is a stock tailscaled in userspace mode at a site, which is also its host name.
type node struct {
	site
	dir    string
	daemon *daemon
}

// socksAddress is where each node's SOCKS5 server listens within its site.
const socksAddress = "127.0.0.1:1055"

// join starts a node at each site and registers both.
func join(t *testing.T, h headscale) (a, b *node) {
	t.Helper()
	a, b = &node{site: siteA, dir: t.TempDir()}, &node{site: siteB, dir: t.TempDir()}
	start := func(n *node) *exec.Cmd {
		n.start(t, relayed)
		return n.tailscale(t, "up", "--login-server="+h.url, "--auth-key="+h.authKey, "--hostname="+string(n.site),
			"--accept-dns=false", "--timeout=20s")
	}
	together(t, start(a), start(b))
	a.ready(t)
	b.ready(t)
	return a, b
}

// together runs programs at the same time.
func together(t *testing.T, cmds ...*exec.Cmd) {
	t.Helper()
	failed := make(chan error, len(cmds))
	for _, cmd := range cmds {
		go func() {
			out, err := cmd.CombinedOutput()
			if err != nil {
				err = fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
			}
			failed <- err
		}()
	}
	for range cmds {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// mode says which paths a node may use.
type mode string

const (
	// relayed makes tailscaled ignore direct paths.
	relayed = mode("TS_DEBUG_ALWAYS_USE_DERP=1")
	anyPath = mode("TS_DEBUG_ALWAYS_USE_DERP=0")
)

func (n *node) start(t *testing.T, m mode) {
	t.Helper()
	cmd := n.command(relaytest.Foreign(t, "tailscaled"), "--tun=userspace-networking", "--no-logs-no-support",
		"--socks5-server="+socksAddress, "--state="+n.dir+"/state", "--socket="+n.socket())
	cmd.Env = append(os.Environ(), "HOME="+n.dir, string(m))
	n.daemon = start(t, "tailscaled-"+string(n.site), cmd)
	until(t, "tailscaled", startLimit, func() error {
		_, err := os.Stat(n.socket())
		return err
	})
}

func (n *node) socket() string { return filepath.Join(n.dir, "tailscaled.sock") }

// restart starts the nodes anew with their old identities and waits until they have each other.
func restart(t *testing.T, m mode, nodes ...*node) {
	t.Helper()
	for _, n := range nodes {
		n.daemon.stop()
		n.start(t, m)
	}
	for _, n := range nodes {
		n.ready(t)
	}
}

// ready waits until the node is in its tailnet, has a home relay and knows its peer.
func (n *node) ready(t *testing.T) {
	t.Helper()
	until(t, "node "+string(n.site), startLimit, func() error {
		out, err := n.tailscale(t, "status", "--json").Output()
		if err != nil {
			return err
		}
		var status struct {
			BackendState string
			Self         struct{ Relay string }
			Peer         map[string]struct{ Relay string }
		}
		if err := json.Unmarshal(out, &status); err != nil {
			return err
		}
		if status.BackendState != "Running" || status.Self.Relay == "" || len(status.Peer) != 1 {
			return fmt.Errorf("%+v", status)
		}
		for _, peer := range status.Peer {
			if peer.Relay == "" {
				return errors.New("the peer has no home relay")
			}
		}
		return nil
	})
}

// tailscale is the command line client of the node.
func (n *node) tailscale(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return n.command(relaytest.Foreign(t, "tailscale"), append([]string{"--socket=" + n.socket()}, args...)...)
}

// address is the node's IPv4 address in the tailnet.
func (n *node) address(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(run(t, n.tailscale(t, "ip", "-4")))
}

// startSSHD runs Debian's sshd at a site and returns the arguments that make ssh trust it, and it ssh.
func startSSHD(t *testing.T, s site) []string {
	t.Helper()
	dir := t.TempDir()
	hostKey, userKey := filepath.Join(dir, "host"), filepath.Join(dir, "user")
	for _, path := range []string{hostKey, userKey} {
		run(t, exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path))
	}
	public, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"known_hosts": fmt.Sprintf("%s %s", s, public),
		"sshd_config": fmt.Sprintf("ListenAddress 127.0.0.1:22\nHostKey %s\nAuthorizedKeysFile %s.pub\n"+
			"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
			hostKey, userKey),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// sshd starts itself again for each connection and demands an absolute path for that.
	start(t, "sshd", s.command("/usr/sbin/sshd", "-D", "-e", "-f", filepath.Join(dir, "sshd_config")))
	until(t, "sshd", startLimit, func() error {
		conn, err := s.dial("tcp", "127.0.0.1:22")
		if err != nil {
			return err
		}
		return conn.Close()
	})
	return []string{"-F", "none", "-i", userKey, "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"),
		"-o", "StrictHostKeyChecking=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10"}
}

// dialThrough connects to an address of the tailnet by the node's SOCKS5 server.
func (n *node) dialThrough(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := socksConnect(context.Background(), n.site, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}
