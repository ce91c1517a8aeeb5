package interop

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// browserLimit bounds the start of a browser and what it compiles, on a machine that has other things to do.
const browserLimit = 90 * time.Second

// The stock client, compiled for browsers, in headless Chromium, exchanges packets with
// a native one. The page has two connections, over TLS and over the plain listener.
func TestClientInBrowser(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	relays := []string{fmt.Sprintf("https://%s/derp", relay.Addr)}
	if relay.Plain.IsValid() {
		relays = append(relays, fmt.Sprintf("http://%s/derp", relay.Plain))
	} else {
		relays = append(relays, relays[0])
	}
	logins, failed := servePage(t, relays)

	native := newPeer(t, relay)
	for range relays {
		var browser key.NodePublic
		select {
		case browser = <-logins:
		case reason := <-failed:
			t.Fatal(reason)
		case <-time.After(browserLimit):
			t.Fatalf("the page did not log in within %v", browserLimit)
		}
		packets, limit := newStream(3), derp.MaxPacketSize
		if relay.Stock {
			limit = 32_000 // what derper takes in one message
		}
		for n := range 500 {
			packet := packets.next(limit)
			native.send(t, browser, string(packet))
			native.wantPacket(t, browser, string(packet))
			if t.Failed() {
				t.Fatalf("packet %d of %d bytes", n, len(packet))
			}
		}
	}
	select {
	case reason := <-failed:
		t.Fatal(reason)
	default:
	}
}

// servePage has a browser run page/ on these relays, and returns what it tells: the keys of its logins, and why it failed.
func servePage(t *testing.T, relays []string) (<-chan key.NodePublic, <-chan string) {
	t.Helper()
	files := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(files, "page.wasm"), "./page")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, output)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	runtime := filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec.js")

	logins, failed := make(chan key.NodePublic, len(relays)), make(chan string, len(relays))
	mux := http.NewServeMux()
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	arguments, err := json.Marshal(append([]string{"page", server.URL + "/"}, relays...))
	if err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `<!doctype html><title>DERP</title><script src="wasm_exec.js"></script><script>
const go = new Go();
go.argv = %s;
WebAssembly.instantiateStreaming(fetch("page.wasm"), go.importObject).then(({instance}) => go.run(instance))
	.catch(error => fetch("failed", {method: "POST", body: error}));
</script>`, arguments)
	})
	mux.HandleFunc("GET /wasm_exec.js", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, runtime) })
	mux.Handle("GET /page.wasm", http.FileServer(http.Dir(files)))
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		var browser key.NodePublic
		if text, err := io.ReadAll(r.Body); err != nil {
			failed <- err.Error()
		} else if err := browser.UnmarshalText(text); err != nil {
			failed <- err.Error()
		} else {
			logins <- browser
		}
	})
	mux.HandleFunc("POST /failed", func(w http.ResponseWriter, r *http.Request) {
		reason, _ := io.ReadAll(r.Body)
		failed <- "the page: " + string(reason)
	})
	openBrowser(t, server.URL, filepath.Join(files, "browser.log"))
	return logins, failed
}

// openBrowser shows a page until the end of the test. The browser reaches this machine only.
func openBrowser(t *testing.T, url, log string) {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatalf("Chromium is needed, Debian's package chromium: %v", err)
	}
	output, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	browser := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--disable-default-apps", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
		// The relay's certificate signed itself.
		"--ignore-certificate-errors", "--enable-logging=stderr", url)
	browser.Stdout, browser.Stderr = output, output
	// A group of its own, because a browser is many processes.
	browser.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := browser.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-browser.Process.Pid, syscall.SIGKILL)
		_ = browser.Wait()
		if t.Failed() {
			t.Logf("end of the browser's log:\n%s", relaytest.Tail(log, 4<<10))
		}
	})
}
