package interop

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// verifyAnswer is an answer of a backend, and what follows from it.
type verifyAnswer struct {
	name    string
	respond http.HandlerFunc
	// ours and derpers say whether the client is admitted.
	ours, derpers bool
	// outcome is the label of our metric.
	outcome string
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// allow and refuse are the two answers that decide.
var allow, refuse = says(200, `{"Allow":true}`), says(200, `{"Allow":false}`)

// verifyAnswers are the cases of docs/protocol/verify.md.
var verifyAnswers = []verifyAnswer{
	{"allowed", allow, true, true, "allow"},
	{"allowed in lower case", says(200, `{"allow":true}`), true, true, "allow"},
	{"allowed with more", says(200, `{"Reason":{"a":[1]},"Allow":true}`), true, true, "allow"},
	{"refused", refuse, false, false, "refuse"},
	{"nothing said", says(200, `{}`), false, false, "refuse"},
	{"null said", says(200, `{"Allow":null}`), false, false, "refuse"},
	{"null", says(200, `null`), false, false, "not_json"},
	{"text for a truth value", says(200, `{"Allow":"true"}`), false, false, "not_json"},
	{"a page", says(200, `<html>It works!</html>`), false, false, "not_json"},
	{"text behind the object", says(200, `{"Allow":true} and more`), false, true, "not_json"},
	{"too long", says(200, `{"Allow":true}`+strings.Repeat(" ", 4096)), false, true, "too_long"},
	{"created", says(201, `{"Allow":true}`), false, false, "other_status"},
	{"moved", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/moved" {
			http.Redirect(w, r, "/moved", http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, `{"Allow":true}`)
	}, false, true, "redirect"},
	{"too many", says(429, `{"Allow":true}`), false, false, "throttled"},
	{"forbidden", says(403, `{"Allow":true}`), false, false, "client_error"},
	{"bad gateway", says(502, `{"Allow":true}`), false, false, "server_error"},
	{"broken", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, false, true, "broken"},
}

// verifyBackend answers questions about each key by a function of its own, and checks the questions.
type verifyBackend struct {
	*httptest.Server
	mu      sync.Mutex
	clients map[string]*verifyClient
}

// verifyClient is a key about which a backend may be asked.
type verifyClient struct {
	answer http.HandlerFunc
	// source is the address that it logs in from.
	source string
	// asked counts the questions about it.
	asked int
}

func newVerifyBackend(t *testing.T) *verifyBackend {
	b := &verifyBackend{clients: map[string]*verifyClient{}}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		answer := b.answerTo(r.Method, string(body))
		if answer == nil {
			t.Errorf("%s %s %q: %v", r.Method, r.URL, body, err)
			return
		}
		answer(w, r)
	}))
	b.Config.ErrorLog = nil
	b.Start()
	t.Cleanup(b.Close)
	return b
}

// answerTo counts a question and returns what answers it, or nil if it is none that a relay should ask.
func (b *verifyBackend) answerTo(method, body string) http.HandlerFunc {
	b.mu.Lock()
	defer b.mu.Unlock()
	for public, client := range b.clients {
		if body == fmt.Sprintf(`{"NodePublic":%q,"Source":%q}`, public, client.source) && method == "POST" {
			client.asked++
			return client.answer
		}
	}
	return nil
}

// client is a new key about which the backend answers so.
func (b *verifyBackend) client(answer http.HandlerFunc) key.NodePrivate {
	private := key.NewNode()
	b.know(private, answer, "127.0.0.1")
	return private
}

// know has the backend answer so from now on about a key that logs in from this address.
func (b *verifyBackend) know(private key.NodePrivate, answer http.HandlerFunc, source string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients[private.Public().String()] = &verifyClient{answer: answer, source: source}
}

// asked is how often the backend was asked about a key.
func (b *verifyBackend) asked(private key.NodePrivate) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.clients[private.Public().String()].asked
}

// By each answer of a backend that docs/protocol/verify.md names.
func TestVerifyURL(t *testing.T) {
	backend := newVerifyBackend(t)
	// As derper does unless it is told otherwise.
	failOpen := relaytest.UnderTest() == relaytest.Derper
	relay := relaytest.Start(t, relaytest.Options{VerifyURL: backend.URL + "/verify", FailOpen: failOpen})
	for _, tc := range verifyAnswers {
		t.Run(tc.name, func(t *testing.T) {
			counter := fmt.Sprintf("towpath_admission_questions_total{outcome=%q,policy=\"verify_url\"}", tc.outcome)
			var before float64
			want := tc.derpers
			if !relay.Stock {
				before, _ = relay.Metric(t, counter)
				want = tc.ours
			}
			if got := relay.Admits(t, backend.client(tc.respond)); got != want {
				t.Errorf("admitted: %v, want %v", got, want)
			}
			if !relay.Stock {
				relay.WaitMetric(t, counter, before+1)
			}
			// An answer ends a row of failures, after which our relay would leave the backend in peace.
			if !relay.Admits(t, backend.client(allow)) {
				t.Error("the next client is not admitted")
			}
		})
	}
}

// A backend that is gone: a client that is not known is admitted if the relay is told so, and one that is known in any case,
// which derper does not tell apart.
func TestVerifyURLWithoutBackend(t *testing.T) {
	for _, failOpen := range []bool{false, true} {
		t.Run(fmt.Sprintf("fail open %v", failOpen), func(t *testing.T) {
			backend := newVerifyBackend(t)
			relay := relaytest.Start(t, relaytest.Options{VerifyURL: backend.URL + "/verify", FailOpen: failOpen})
			known := backend.client(allow)
			if !relay.Admits(t, known) {
				t.Fatal("the client is not admitted")
			}
			backend.Close()
			for range 5 {
				if got := relay.Admits(t, known); got != (failOpen || !relay.Stock) {
					t.Errorf("a client that is known is admitted: %v", got)
				}
				if got := relay.Admits(t, key.NewNode()); got != failOpen {
					t.Errorf("a client that is not known is admitted: %v", got)
				}
			}
		})
	}
}

// By the program that docs/protocol/verify.md prints.
func TestVerifyBackendOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/protocol/verify.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n```python\n")
	program, _, found := strings.Cut(rest, "\n```\n")
	if !found {
		t.Fatal("the page has no program")
	}
	dir := t.TempDir()
	script, keys, token := filepath.Join(dir, "verify.py"), filepath.Join(dir, "keys"), filepath.Join(dir, "token")
	member, stranger := key.NewNode(), key.NewNode()
	list := fmt.Sprintf("# the members\n%s  # alice\n", member.Public())
	for path, text := range map[string]string{script: program, keys: list, token: "s3cret\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	port := relaytest.FreeAddress(t).Port()
	backend := exec.Command("python3", script, keys, fmt.Sprint(port))
	relay := relaytest.Configure(t, relaytest.Options{
		VerifyURL: fmt.Sprintf("http://127.0.0.1:%d/verify", port),
		Settings:  fmt.Sprintf("verify.token_file = %q", token),
	})
	if !relay.Stock {
		backend.Env = append(os.Environ(), "VERIFY_TOKEN=s3cret")
	}
	backend.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log strings.Builder
	backend.Stdout, backend.Stderr = &log, &log
	if err := backend.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = backend.Process.Kill()
		_ = backend.Wait()
		if t.Failed() {
			t.Logf("the backend's output:\n%s", log.String())
		}
	})
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for deadline := time.Now().Add(answerLimit); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	relay.Launch(t)
	if !relay.Admits(t, member) {
		t.Error("a key in the file is not admitted")
	}
	if relay.Admits(t, stranger) {
		t.Error("a key that is not in the file is admitted")
	}
	if err := os.WriteFile(keys, []byte(list+stranger.Public().String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A relay may remember a refusal for some seconds.
	for deadline := time.Now().Add(4 * answerLimit); !relay.Admits(t, stranger); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatal("a key that has come into the file is not admitted")
		}
	}
	for _, wrong := range []string{"", "Bearer other"} {
		req, err := http.NewRequest("POST", "http://"+address+"/verify", strings.NewReader(`{"NodePublic":"x"}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", wrong)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if want := http.StatusUnauthorized; res.StatusCode != want && !relay.Stock {
			t.Errorf("with the token %q: %s, want %d", wrong, res.Status, want)
		}
	}
}
