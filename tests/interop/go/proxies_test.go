package interop

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// proxyProgram is a reverse proxy in front of a relay, as docs/operating.md sets it up.
type proxyProgram struct {
	// name is the program, and language what the page calls its configuration.
	name, language string
	// isOptional says that foreign/install does not install it.
	isOptional bool
	// adapt are texts of the page and what stands for them here.
	adapt func(front netip.AddrPort, dir string) []string
	// around is the configuration that the page's is put into, for %s.
	around func(dir string) string
	// command runs the program in the foreground with the configuration in a file, to listen at front.
	command func(file, dir string, front netip.AddrPort) []string
}

var (
	nginxOfHTTP = proxyProgram{
		name: "nginx", language: "nginx",
		adapt: func(front netip.AddrPort, dir string) []string {
			return []string{
				"listen 443 ssl", fmt.Sprintf("listen %s ssl", front),
				"/etc/nginx/relay.crt", dir + "/cert.pem", "/etc/nginx/relay.key", dir + "/key.pem",
			}
		},
		around: func(dir string) string {
			temporary := ""
			for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
				temporary += fmt.Sprintf("%s_temp_path %s/%s;\n", name, dir, name)
			}
			return nginxMain(dir) + "http {\naccess_log off;\n" + temporary + "%s}\n"
		},
		command: nginxCommand,
	}
	nginxOfTCP = proxyProgram{
		name: "nginx", language: "nginx",
		adapt: func(front netip.AddrPort, _ string) []string {
			return []string{"listen 443", fmt.Sprintf("listen %s", front)}
		},
		around: func(dir string) string {
			return "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\n" + nginxMain(dir) + "stream {\n%s}\n"
		},
		command: nginxCommand,
	}
	haproxyOfHTTP = proxyProgram{
		name: "haproxy", language: "haproxy",
		adapt: func(front netip.AddrPort, dir string) []string {
			return []string{"bind :443", fmt.Sprintf("bind %s", front), "/etc/haproxy/relay.pem", dir + "/both.pem"}
		},
		around:  haproxyMain,
		command: haproxyCommand,
	}
	haproxyOfTCP = proxyProgram{
		name: "haproxy", language: "haproxy",
		adapt: func(front netip.AddrPort, _ string) []string {
			return []string{"bind :443", fmt.Sprintf("bind %s", front)}
		},
		around:  haproxyMain,
		command: haproxyCommand,
	}
	caddyOfHTTP = proxyProgram{
		name: "caddy", language: "caddy",
		adapt: func(front netip.AddrPort, dir string) []string {
			site := fmt.Sprintf("https://localhost:%d {\nbind %s\ntls %s/cert.pem %s/key.pem", front.Port(), front.Addr(), dir, dir)
			return []string{"relay.example.com {", site}
		},
		around: func(string) string { return "{\nadmin off\nauto_https disable_redirects\n}\n%s" },
		command: func(file, _ string, _ netip.AddrPort) []string {
			return []string{"run", "--config", file, "--adapter", "caddyfile"}
		},
	}
	apacheOfHTTP = proxyProgram{
		name: "apache2", language: "apache",
		adapt: func(front netip.AddrPort, dir string) []string {
			return []string{
				"*:443", front.String(),
				"/etc/apache2/relay.crt", dir + "/cert.pem", "/etc/apache2/relay.key", dir + "/key.pem",
			}
		},
		around: func(dir string) string {
			main := fmt.Sprintf("ServerName localhost\nPidFile %s/apache.pid\nMutex pthread\nErrorLog /dev/stderr\nUser nobody\nGroup nogroup\n", dir)
			for _, module := range []string{"mpm_event", "authz_core", "socache_shmcb", "ssl", "proxy", "proxy_http"} {
				main += fmt.Sprintf("LoadModule %s_module /usr/lib/apache2/modules/mod_%s.so\n", module, module)
			}
			return main + "Listen FRONT\n%s"
		},
		command: func(file, _ string, _ netip.AddrPort) []string { return []string{"-f", file, "-DFOREGROUND"} },
	}
	traefikOfHTTP = proxyProgram{
		name: "traefik", language: "yaml", isOptional: true,
		adapt: func(_ netip.AddrPort, dir string) []string {
			return []string{
				"relay.example.com", "localhost",
				"/etc/traefik/relay.crt", dir + "/cert.pem", "/etc/traefik/relay.key", dir + "/key.pem",
			}
		},
		around:  func(string) string { return "%s" },
		command: traefikCommand,
	}
	traefikOfTCP = proxyProgram{
		name: "traefik", language: "yaml", isOptional: true,
		adapt:   func(netip.AddrPort, string) []string { return []string{"relay.example.com", "localhost"} },
		around:  func(string) string { return "%s" },
		command: traefikCommand,
	}
)

func nginxMain(dir string) string {
	return fmt.Sprintf("user root;\npid %s/nginx.pid;\nworker_processes 1;\nevents {}\n", dir)
}

func nginxCommand(file, dir string, _ netip.AddrPort) []string {
	return []string{"-p", dir, "-c", file, "-e", "stderr", "-g", "daemon off;"}
}

func haproxyMain(string) string { return "global\n    maxconn 100\n    log stderr local0 err\n\n%s" }

func haproxyCommand(file, _ string, _ netip.AddrPort) []string { return []string{"-db", "-f", file} }

// traefikCommand is a static configuration by flags: the entry point of the page, and its file.
func traefikCommand(file, _ string, front netip.AddrPort) []string {
	return []string{
		fmt.Sprintf("--entryPoints.websecure.address=%s", front), "--providers.file.filename=" + file,
		"--global.checkNewVersion=false", "--global.sendAnonymousUsage=false",
	}
}

// path is where the program is installed: by Debian, or in the folder of foreign programs.
func (p proxyProgram) path(t *testing.T) string {
	t.Helper()
	candidates := []string{p.name, filepath.Join("/usr/sbin", p.name), filepath.Join("/sbin", p.name)}
	if foreign := os.Getenv("TOWPATH_FOREIGN"); foreign != "" {
		candidates = append(candidates, filepath.Join(foreign, "bin", p.name))
	}
	for _, candidate := range candidates {
		if program, err := exec.LookPath(candidate); err == nil {
			return program
		}
	}
	if p.isOptional {
		t.Skipf("no %s is installed, in PATH or in TOWPATH_FOREIGN; foreign/install has none", p.name)
	}
	t.Fatalf("no %s: foreign/install installs it", p.name)
	return ""
}

// documented returns the code in this language below a heading of docs/operating.md.
func documented(t *testing.T, heading, language string) string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n### "+heading+"\n")
	section, _, _ = strings.Cut(section, "\n### ")
	_, code, hasCode := strings.Cut(section, "\n```"+language+"\n")
	code, _, ended := strings.Cut(code, "```\n")
	if !found || !hasCode || !ended {
		t.Fatalf("docs/operating.md has no %s below %q", language, heading)
	}
	return code
}

// start runs the proxy in front of the relay with what the page says, and returns its address.
func (p proxyProgram) start(t *testing.T, heading string, relay *relaytest.Relay) netip.AddrPort {
	t.Helper()
	program := p.path(t)
	dir := t.TempDir()
	files := filepath.Dir(relay.ConfigFile)
	both := ""
	for _, name := range []string{"cert.pem", "key.pem"} {
		text, err := os.ReadFile(filepath.Join(files, name))
		if err != nil {
			t.Fatal(err)
		}
		both += string(text)
		write(t, filepath.Join(dir, name), string(text))
	}
	write(t, filepath.Join(dir, "both.pem"), both)
	front := relaytest.FreeAddress(t)
	config := documented(t, heading, p.language)
	server, upstream := "10.0.0.5:8080", relay.Plain
	if strings.Contains(config, "10.0.0.5:443") {
		server, upstream = "10.0.0.5:443", relay.Addr
	}
	changes := append(p.adapt(front, dir), server, upstream.String())
	for i := 0; i < len(changes); i += 2 {
		if !strings.Contains(config, changes[i]) {
			t.Fatalf("%q is not in the configuration of %s:\n%s", changes[i], p.name, config)
		}
		config = strings.ReplaceAll(config, changes[i], changes[i+1])
	}
	config = strings.ReplaceAll(fmt.Sprintf(p.around(dir), config), "Listen FRONT", "Listen "+front.String())
	// Traefik goes by the ending.
	file := filepath.Join(dir, "proxy."+p.language)
	write(t, file, config)

	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := exec.Command(program, p.command(file, dir, front)...)
	proxy.Env = append(os.Environ(), "HOME="+dir, "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir)
	proxy.Stdout, proxy.Stderr = log, log
	// A group of its own, with which its workers end, too.
	proxy.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := proxy.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-proxy.Process.Pid, syscall.SIGKILL)
		_ = proxy.Wait()
		log.Close()
		if t.Failed() {
			t.Logf("%s says:\n%s\nand the relay:\n%s", p.name, relaytest.Tail(log.Name(), 4<<10), relaytest.Tail(relay.Log(), 4<<10))
		}
	})
	wantProbe(t, p.name, front)
	return front
}

// wantProbe waits until the relay answers a probe through the proxy, which may listen before it has read all of its configuration.
func wantProbe(t *testing.T, name string, front netip.AddrPort) {
	t.Helper()
	client := http.Client{
		Timeout:   time.Second,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true},
	}
	url := fmt.Sprintf("https://localhost:%d/derp/probe", front.Port())
	for deadline := time.Now().Add(answerLimit); ; time.Sleep(10 * time.Millisecond) {
		res, err := client.Get(url)
		if err == nil {
			res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return
			}
			err = errors.New(res.Status)
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay cannot be probed through %s: %v", name, err)
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// loginThrough logs in with DERP and with WebSocket through the proxy, from an address of loopback that the relay has to know.
func loginThrough(t *testing.T, front netip.AddrPort, relay *relaytest.Relay) {
	t.Helper()
	const client = "127.0.0.9"
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}, Timeout: answerLimit},
		Config:    &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"},
	}
	conn, err := dialer.DialContext(t.Context(), "tcp", front.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	setDeadline(t, conn, answerLimit)
	request := strings.Replace(upgradeRequest(relay), relay.Addr.String(), fmt.Sprintf("localhost:%d", front.Port()), 1)
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	stream := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	switching(t, stream.Reader)
	derp := collect(logInto(t, key.NewNode(), conn, stream))

	url := fmt.Sprintf("wss://localhost:%d/derp", front.Port())
	ws := collect(loginWebSocket(t, url, websocket.DialOptions{}))
	derp.send(t, ws.public(), "to the browser")
	ws.wantPacket(t, derp.public(), "to the browser")
	ws.send(t, derp.public(), strings.Repeat("back", 8<<10))
	derp.wantPacket(t, ws.public(), strings.Repeat("back", 8<<10))

	wantLogged(t, relay, "address="+client+":")
	for _, reason := range []string{"proxy_header", "proxy_header_missing", "proxy_header_invalid"} {
		if count, found := relay.Metric(t, fmt.Sprintf("towpath_refused_total{reason=%q}", reason)); count != 0 || !found {
			t.Errorf("%s counts %v", reason, count)
		}
	}
}

// Each configuration of docs/operating.md for a proxy that ends TLS, with the program that it is for.
func TestProxiesOfHTTP(t *testing.T) {
	for _, proxy := range []proxyProgram{nginxOfHTTP, caddyOfHTTP, haproxyOfHTTP, apacheOfHTTP, traefikOfHTTP} {
		t.Run(proxy.name, func(t *testing.T) {
			relay := relaytest.Configure(t, relaytest.Options{Proxies: []string{"127.0.0.1"}})
			if relay.Stock {
				t.Skip("derper knows no client behind a proxy")
			}
			relay.Launch(t)
			loginThrough(t, proxy.start(t, "A proxy of HTTP", relay), relay)
		})
	}
}

// The same for a proxy that passes TLS on, and names the client in a header of the PROXY protocol.
func TestProxiesOfTCP(t *testing.T) {
	for _, proxy := range []proxyProgram{haproxyOfTCP, nginxOfTCP, traefikOfTCP} {
		t.Run(proxy.name, func(t *testing.T) {
			relay := relaytest.Configure(t, relaytest.Options{
				Settings: "proxy_protocol.sources = [\"127.0.0.1\"]\nlog.level = \"debug\"",
			})
			if relay.Stock {
				t.Skip("derper knows no client behind a proxy")
			}
			relay.Launch(t)
			loginThrough(t, proxy.start(t, "A proxy of TCP", relay), relay)
		})
	}
}
