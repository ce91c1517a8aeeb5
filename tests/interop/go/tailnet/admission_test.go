package tailnet

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// verifyURL is Headscale's, as the relay beside it sees it.
const verifyURL = "http://127.0.0.1:8080/verify"

// questions is the number of questions to a backend of admission that came to this.
func questions(t *testing.T, relay *relaytest.Relay, policy, outcome string) float64 {
	t.Helper()
	name := fmt.Sprintf("towpath_admission_questions_total{outcome=%q,policy=%q}", outcome, policy)
	n, _ := relay.Metric(t, name)
	return n
}

// wantAsked demands that the relay has admitted both nodes because the backend said so, and refuses a stranger.
func wantAsked(t *testing.T, relay *relaytest.Relay, policy string) {
	t.Helper()
	if relay.Admits(t, key.NewNode()) {
		t.Error("a key of no node is admitted")
	}
	if relay.Stock {
		return
	}
	if n := questions(t, relay, policy, "allow"); n < 2 {
		t.Errorf("%s has allowed %v times, want each of two nodes", policy, n)
	}
	if n := questions(t, relay, policy, "refuse"); n != 1 {
		t.Errorf("%s has refused %v times, want the stranger once", policy, n)
	}
}

// admittedByTailscaled has the relay ask the tailscaled of a instead of Headscale, also while that tailscaled starts
// and has no other relay than this one.
func admittedByTailscaled(t *testing.T, a, b *node, relay *relaytest.Relay) {
	relay.Kill(t)
	relay.Reconfigure(t, fmt.Sprintf("verify.url = %q", verifyURL), fmt.Sprintf("tailscaled.socket = %q", a.socket()))
	relay.Launch(t)
	restart(t, relayed, a, b)
	wantPath(t, a, b, viaRelay)
	wantAsked(t, relay, "tailscaled")

	relay.Kill(t)
	relay.Forget(t)
	a.daemon.stop()
	relay.Launch(t)
	if relay.Admits(t, b.privateKey(t)) {
		t.Error("a key that is not known is admitted while tailscaled does not run")
	}
	restart(t, relayed, a)
	wantPath(t, a, b, viaRelay)
	if n := questions(t, relay, "tailscaled", "connect"); n < 1 {
		t.Error("tailscaled was not missed while it did not run")
	}
}

// privateKey is the node key by which the node logs in at relays.
func (n *node) privateKey(t *testing.T) key.NodePrivate {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(n.dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	var state map[string]string
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	for name, value := range state {
		if !strings.HasPrefix(name, "profile-") {
			continue
		}
		prefs, err := base64.StdEncoding.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		var profile struct {
			Config struct{ PrivateNodeKey key.NodePrivate }
		}
		if err := json.Unmarshal(prefs, &profile); err != nil {
			t.Fatal(err)
		}
		if !profile.Config.PrivateNodeKey.IsZero() {
			return profile.Config.PrivateNodeKey
		}
	}
	t.Fatalf("no node key in %s", text)
	return key.NodePrivate{}
}

// deletedNode has a connection by the key of a node, at a relay that asks Headscale, until the node is deleted there. The
// tailscaled of another node does not hear of it for some time, and so could not tell the relay.
func deletedNode(t *testing.T, h headscale, n *node, relay *relaytest.Relay) {
	// What tailscaled itself does once its node is deleted must not be taken for what the relay does.
	private := n.privateKey(t)
	n.daemon.stop()
	conn, admitted := relay.TryLogin(t, private)
	defer conn.Close()
	if !admitted {
		t.Fatal("the key of a node is not admitted")
	}
	h.deleteNode(t, n.site)
	began := time.Now()
	relaytest.WaitClosed(t, conn, recheckLimit)
	t.Logf("closed %v after the node was deleted", time.Since(began).Round(time.Millisecond))
	relay.WaitMetric(t, `towpath_closed_total{reason="revoked"}`, 1)
	if relay.Admits(t, private) {
		t.Error("the key of a deleted node is admitted again")
	}
}

// recheck has connections checked again more often than a minute.
const recheck = `confirm.interval = "5s"`

// recheckLimit is that interval and five seconds.
const recheckLimit = 10 * time.Second

// deleteNode removes the node of a site from the tailnet.
func (h headscale) deleteNode(t *testing.T, s site) {
	t.Helper()
	var nodes []struct {
		ID   json.Number
		Name string
	}
	out := run(t, h.command("nodes", "list", "-o", "json"))
	if err := json.Unmarshal([]byte(out), &nodes); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, node := range nodes {
		if node.Name == string(s) {
			run(t, h.command("nodes", "delete", "--force", "-i", node.ID.String()))
			return
		}
	}
	t.Fatal(errors.New("no node " + string(s) + " in " + out))
}

func (h headscale) command(args ...string) *exec.Cmd {
	return exec.Command(h.program, append([]string{"-c", h.config}, args...)...)
}
