package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// verdicts are derpprobe's: the probes that were good and bad, in order, and its exit code.
type verdicts struct {
	good, bad []string
	exit      int
	log       []byte
}

// derpprobe has Tailscale's prober look once at a region of these relays, with a key of probers, the way that
// operators run it. A client of one relay sends to one of another 100 ms after that has logged in, whether or not
// the first relay has heard of it by then.
//
// Two things are in the map for derpprobe's sake: a name for each node, because it takes the server name of TLS
// for the host name, and an address has none there; and no `IPv6: "none"`, because it asks that for STUN. It
// verifies by the system's roots, which a variable replaces, so nothing is pinned. Where it looks for a revocation
// list, the certificate has to name one; these name none.
func derpprobe(t *testing.T, relays []*relaytest.Relay, proberKey string, args ...string) verdicts {
	t.Helper()
	dir := t.TempDir()
	region := relays[0].Region()
	region.Nodes = nil
	var roots []byte
	for i, r := range relays {
		node := r.Region().Nodes[0]
		node.Name = nodeName(i)
		node.HostName, node.CertName, node.IPv6 = "localhost", "", ""
		region.Nodes = append(region.Nodes, node)
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.Cert.Raw})...)
	}
	derpMap, err := json.Marshal(tailcfg.DERPMap{
		Regions: map[tailcfg.DERPRegionID]*tailcfg.DERPRegion{region.RegionID: region},
	})
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	probe := exec.CommandContext(ctx, relaytest.Foreign(t, "derpprobe"), append([]string{
		"--once", "--spread=false",
		"--derp-map=file://" + write("derpmap.json", derpMap),
		"--mesh-psk-file=" + write("prober.key", []byte(proberKey+"\n")),
	}, args...)...)
	probe.Env = append(os.Environ(), "SSL_CERT_FILE="+write("roots.pem", roots))
	out, err := probe.CombinedOutput()
	if probe.ProcessState == nil || !probe.ProcessState.Exited() {
		t.Fatalf("derpprobe: %v\n%s", err, out)
	}
	v := verdicts{exit: probe.ProcessState.ExitCode(), log: out}
	for _, line := range verdictLine.FindAllSubmatch(out, -1) {
		list := &v.good
		if bytes.Equal(line[1], []byte("bad")) {
			list = &v.bad
		}
		*list = append(*list, string(line[2]))
	}
	return v
}

// A line has date and time, verdict, the probe's name, and how long it took or what was wrong.
var verdictLine = regexp.MustCompile(`(?m)^\S+ \S+ (good|bad): (\S+): `)

// want demands these verdicts and no others.
func (v verdicts) want(t *testing.T, exit int, good, bad []string) {
	t.Helper()
	if want := slices.Sorted(slices.Values(good)); !slices.Equal(v.good, want) {
		t.Errorf("good are %q, want %q", v.good, want)
	}
	if want := slices.Sorted(slices.Values(bad)); !slices.Equal(v.bad, want) {
		t.Errorf("bad are %q, want %q", v.bad, want)
	}
	if v.exit != exit {
		t.Errorf("derpprobe exits with %d, want %d", v.exit, exit)
	}
	if t.Failed() {
		t.Logf("derpprobe:\n%s", v.log)
	}
}

func nodeName(i int) string { return fmt.Sprintf("%d%c", relaytest.RegionID, 'a'+i) }

// expectedProbes are the names of the probes of a region of two relays: those of each alone, and those from each
// to the other one.
func expectedProbes() (alone, across []string) {
	alone = []string{"derpmap-probe"}
	for from := range 2 {
		for _, kind := range []string{"tls", "udp"} {
			alone = append(alone, fmt.Sprintf("derp/towpath/%s/%s", nodeName(from), kind))
		}
		for to := range 2 {
			for _, kind := range []string{"mesh", "bw"} {
				name := fmt.Sprintf("derp/towpath/%s/%s/%s", nodeName(from), nodeName(to), kind)
				if from == to {
					alone = append(alone, name)
				} else {
					across = append(across, name)
				}
			}
		}
	}
	return alone, across
}

// startRegion runs two relays of these kinds, in one mesh or each in its own.
func startRegion(t *testing.T, kinds [2]string, proberKey string, inOneMesh bool) []*relaytest.Relay {
	t.Helper()
	mesh := relaytest.Mesh{Key: newMeshKey(t), Prober: proberKey}
	var relays []*relaytest.Relay
	for _, kind := range kinds {
		options := relaytest.Options{Kind: kind, PrivateKey: key.NewNode()}
		relays = append(relays, relaytest.Configure(t, options))
	}
	if inOneMesh {
		mesh.Peers = []relaytest.Peer{relays[0].Peer(t), relays[1].Peer(t)}
	}
	for _, r := range relays {
		r.Join(t, mesh)
	}
	for _, r := range relays {
		r.Launch(t)
	}
	return relays
}

// Tailscale's prober finds a region of two relays in order, with 25 MB from
// each relay to each. To derper the key of our probers is a wrong one, with which a client is like any other.
func TestDerpprobeOfMesh(t *testing.T) {
	alone, across := expectedProbes()
	all := slices.Concat(alone, across)
	for _, kinds := range pairs() {
		t.Run(kinds[0]+" and "+kinds[1], func(t *testing.T) {
			proberKey := newMeshKey(t)
			relays := startRegion(t, kinds, proberKey, true)
			wantLinked(t, relays[0], relays[1])
			derpprobe(t, relays, proberKey, "--bw-interval=60s", "--bw-probe-size-bytes=25000000").want(t, 0, all, nil)
			for _, r := range relays {
				if !r.Stock {
					wantProbersOnly(t, r)
				}
			}
		})
	}
}

// wantProbersOnly demands that the probers' key was the only one that clients claimed anything with.
func wantProbersOnly(t *testing.T, r *relaytest.Relay) {
	t.Helper()
	if metric(t, r, `towpath_mesh_claims_total{claim="prober"}`) == 0 {
		t.Error("nobody came with the key of probers")
	}
	for _, claim := range []string{"wrong_key", "wrong_source"} {
		if n := metric(t, r, fmt.Sprintf("towpath_mesh_claims_total{claim=%q}", claim)); n != 0 {
			t.Errorf("%v logins with claim %s", n, claim)
		}
	}
}

// Without a mesh between them the relays are in order, and the region is not: the prober sees the difference.
func TestDerpprobeOfNoMesh(t *testing.T) {
	alone, across := expectedProbes()
	proberKey := newMeshKey(t)
	relays := startRegion(t, [2]string{relaytest.UnderTest(), relaytest.UnderTest()}, proberKey, false)
	// It waits for four fifths of an interval.
	derpprobe(t, relays, proberKey, "--mesh-interval=5s", "--bw-interval=5s").want(t, 1, alone, across)
}
