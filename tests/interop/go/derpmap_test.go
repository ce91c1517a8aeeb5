package interop

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netcheck"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// maps are the good and bad maps that the checks of towpath-relay are tested with, too.
const maps = "../../../derpmap/tests/maps"

type (
	region = tailcfg.DERPRegion
	node   = tailcfg.DERPNode
)

// derpmap runs the relay's sub-command and returns what it prints.
func derpmap(t *testing.T, stdin []byte, args ...string) ([]byte, int) {
	t.Helper()
	if os.Getenv("TOWPATH_RELAY_KIND") == "derper" {
		t.Skip("derper reads no maps")
	}
	cmd := exec.Command(os.Getenv("TOWPATH_RELAY"), append([]string{"derpmap"}, args...)...)
	cmd.Stdin = strings.NewReader(string(stdin))
	out, err := cmd.Output()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

type finding struct {
	Code        string
	Severity    string
	RefusesFile bool `json:"refuses_file"`
}

type report struct {
	Findings []finding
	Diff     struct {
		Changes []struct {
			Impact string
			Region *tailcfg.DERPRegionID
		}
	}
}

func reportOf(t *testing.T, stdin []byte, args ...string) report {
	t.Helper()
	out, code := derpmap(t, stdin, append(args, "--report", "json")...)
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("exit code %d: %v: %s", code, err, out)
	}
	return r
}

// refuses says whether the check finds that the reader refuses the file.
func refuses(t *testing.T, file string) bool {
	t.Helper()
	if out, code := derpmap(t, nil, "--check", "--from", file, "--format", "json", "--report", "json"); code == 2 && len(out) == 0 {
		return true
	}
	return slices.ContainsFunc(reportOf(t, nil, "--check", "--from", file, "--format", "json").Findings,
		func(f finding) bool { return f.RefusesFile })
}

func readMap(t *testing.T, file string) (*tailcfg.DERPMap, error) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var m tailcfg.DERPMap
	err = json.Unmarshal(b, &m)
	return &m, err
}

// What derpmap reads in a file is what a client reads.
func TestDERPMapsAreReadAlike(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(maps, "*.json"))
	if len(files) == 0 {
		t.Fatal("there are no maps")
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if b, _ := os.ReadFile(file); strings.Contains(string(b), "derpMap") {
				t.Skip("a policy")
			}
			theirs, err := readMap(t, file)
			refused := refuses(t, file)
			if refused != (err != nil) {
				t.Fatalf("the client: %v; the check says that it refuses the file: %v", err, refused)
			}
			out, code := derpmap(t, nil, "--from", file)
			if err != nil {
				if code != 2 {
					t.Errorf("exit code %d for a file that clients refuse, want 2", code)
				}
				return
			}
			if filepath.Base(file) == "out-of-range.json" {
				if code != 1 {
					t.Errorf("exit code %d for numbers that a map cannot be written with, want 1", code)
				}
				return
			}
			var ours tailcfg.DERPMap
			if err := json.Unmarshal(out, &ours); err != nil {
				t.Fatalf("exit code %d: %v: %s", code, err, out)
			}
			for _, region := range theirs.Regions {
				if region != nil {
					// What is printed has no null node, which the check reports.
					region.Nodes = slices.DeleteFunc(region.Nodes, func(n *node) bool { return n == nil })
				}
			}
			if g, w := text(t, &ours), text(t, theirs); g != w {
				t.Errorf("towpath-relay reads\n%s\nthe client reads\n%s", g, w)
			}
		})
	}
}

func text(t *testing.T, m *tailcfg.DERPMap) string {
	t.Helper()
	for _, region := range m.Regions {
		if region != nil && region.Nodes == nil {
			region.Nodes = []*node{}
		}
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A client closes its connection to each region that is not deeply equal to what it had (magicsock's setDERPMap). Those are
// the regions for which a diff names an impact.
func TestDERPMapDiffNamesEachRegionThatClientsCompareUnequal(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(maps, "changes", "*.json"))
	if len(files) < 2 {
		t.Fatal("there are no maps")
	}
	for _, from := range files {
		for _, to := range files {
			older, err := readMap(t, from)
			if err != nil {
				t.Fatal(err)
			}
			newer, err := readMap(t, to)
			if err != nil {
				t.Fatal(err)
			}
			want := map[tailcfg.DERPRegionID]bool{}
			for id, region := range older.Regions {
				if region == nil {
					// A client takes these for regions that are not there (controlclient's map.go).
					continue
				}
				if !reflect.DeepEqual(region, newer.Regions[id]) {
					want[id] = true
				}
			}
			got := map[tailcfg.DERPRegionID]bool{}
			for _, change := range reportOf(t, nil, "--from", to, "--diff", from).Diff.Changes {
				if change.Impact == "none" || change.Region == nil {
					continue
				}
				// A null takes a region from those that Headscale has from elsewhere, if it has it.
				if null, ok := newer.Regions[*change.Region]; ok && null == nil && older.Regions[*change.Region] == nil {
					continue
				}
				got[*change.Region] = true
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s to %s: towpath-relay names %v, a client compares %v unequal",
					filepath.Base(from), filepath.Base(to), got, want)
			}
		}
	}
}

// Whatever member of a region or a node changes, a client compares the region unequal, and the diff names it.
func TestDERPMapDiffKnowsEachMember(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, r *region) string {
		b, err := json.Marshal(&tailcfg.DERPMap{Regions: map[tailcfg.DERPRegionID]*region{900: r}})
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(dir, name+".json")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	fresh := func() *region { return &region{RegionID: 900, Nodes: []*node{{Name: "900a", RegionID: 900}}} }
	from := write("from", fresh())
	for _, tc := range []struct {
		name string
		of   func(*region) reflect.Value
	}{
		{"region", func(r *region) reflect.Value { return reflect.ValueOf(r).Elem() }},
		{"node", func(r *region) reflect.Value { return reflect.ValueOf(r.Nodes[0]).Elem() }},
	} {
		for i := range tc.of(fresh()).NumField() {
			r := fresh()
			member, name := tc.of(r).Field(i), tc.name+"-"+tc.of(r).Type().Field(i).Name
			switch member.Kind() {
			case reflect.Int, reflect.Int64:
				member.SetInt(member.Int() + 1)
			case reflect.Float64:
				member.SetFloat(1)
			case reflect.Bool:
				member.SetBool(true)
			case reflect.String:
				member.SetString("other")
			case reflect.Slice:
				r.Nodes = append(r.Nodes, &node{Name: "900b", RegionID: 900})
			default:
				t.Fatalf("%s is a %v", name, member.Kind())
			}
			changes := reportOf(t, nil, "--from", write(name, r), "--diff", from).Diff.Changes
			if len(changes) != 1 || changes[0].Impact == "none" {
				t.Errorf("%s: changes %v, want one that disconnects", name, changes)
			}
		}
	}
}

// A client that connects, or not, to a region of which a check says so.
func TestDERPMapFindingsAboutConnecting(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	for _, tc := range []struct {
		name     string
		edit     func(*region, *node)
		code     string // of the finding, "" for none
		connects bool
	}{
		{"good", func(*region, *node) {}, "", true},
		{"no nodes", func(r *region, _ *node) { r.Nodes = nil }, "no-nodes", false},
		{"STUN only", func(_ *region, n *node) { n.STUNOnly = true }, "no-relay", false},
		{"scheme", func(_ *region, n *node) { n.HostName, n.IPv4 = "https://localhost", "" }, "host-name-form", false},
		{"port", func(_ *region, n *node) { n.HostName, n.IPv4 = "localhost:443", "" }, "host-name-form", false},
		// The client dials itself, which is where the relay is.
		{"no host name", func(_ *region, n *node) { n.HostName, n.IPv4 = "", "" }, "host-name-missing", true},
		{"no host name and no pin", func(_ *region, n *node) { n.HostName, n.CertName = "", "" }, "host-name-missing", false},
		{"no host name, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "", "127.0.0.1" }, "host-name-missing", true},
		{"no host name, an address, any certificate", func(_ *region, n *node) {
			n.HostName, n.IPv4, n.IPv6, n.CertName, n.InsecureForTests = "", "127.0.0.1", "none", "", true
		}, "host-name-missing", true},
		{"scheme, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "https://localhost", "127.0.0.1" }, "host-name-form", false},
		{"path, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "localhost/x", "127.0.0.1" }, "host-name-form", false},
		{"white space, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "local host", "127.0.0.1" }, "host-name-form", false},
		{"port, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "localhost:443", "127.0.0.1" }, "host-name-form", false},
		{"wildcard, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "*.localhost", "127.0.0.1" }, "host-name-form", false},
		{"no such label, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "a..b", "127.0.0.1" }, "host-name-form", false},
		{"letters, an address and a pin", func(_ *region, n *node) { n.HostName, n.IPv4 = "b\u00fccher.example", "127.0.0.1" }, "host-name-form", false},
		{"wildcard, an address and no pin", func(_ *region, n *node) { n.HostName, n.IPv4, n.CertName = "*.localhost", "127.0.0.1", "" }, "host-name-form", false},
		{"no address", func(_ *region, n *node) { n.IPv4, n.IPv6 = "none", "none" }, "no-address", false},
		{"no address in this family", func(_ *region, n *node) { n.HostName, n.IPv4, n.IPv6 = "127.0.0.1", "::1", "none" }, "no-address", false},
		{"capital pin", func(_ *region, n *node) {
			n.CertName = "sha256-raw:" + strings.ToUpper(strings.TrimPrefix(n.CertName, "sha256-raw:"))
		}, "pin-form", false},
		{"other prefix", func(_ *region, n *node) {
			n.CertName = "sha256:" + strings.TrimPrefix(n.CertName, "sha256-raw:")
		}, "pin-form", false},
		{"no pin", func(_ *region, n *node) { n.HostName, n.CertName = "127.0.0.1", "" }, "address-without-pin", false},
		{"insecure", func(_ *region, n *node) { n.InsecureForTests, n.CertName = true, "" }, "insecure", true},
		{"insecure and another pin", func(_ *region, n *node) {
			n.InsecureForTests, n.CertName = true, "sha256-raw:"+strings.Repeat("0", 64)
		}, "insecure", false},
		{"negative port", func(_ *region, n *node) { n.DERPPort = -1 }, "derp-port-range", false},
		{"large port", func(_ *region, n *node) { n.DERPPort = 70000 }, "derp-port-range", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := relay.Region()
			tc.edit(r, r.Nodes[0])
			found := wantFinding(t, &tailcfg.DERPMap{Regions: map[tailcfg.DERPRegionID]*region{r.RegionID: r}}, tc.code)
			if tc.code == "host-name-form" && (found.Severity == "error") == tc.connects {
				t.Errorf("the finding is of level %s, and a client connects: %v", found.Severity, tc.connects)
			}
			client := derphttp.NewRegionClient(key.NewNode(), t.Logf, netmon.NewStatic(),
				func() *region { return r })
			defer client.Close()
			if err := client.Connect(t.Context()); (err == nil) != tc.connects {
				t.Errorf("connect: %v, want success: %v", err, tc.connects)
			}
		})
	}
}

// private-address is said of every relay on loopback.
func wantFinding(t *testing.T, m *tailcfg.DERPMap, code string) (wanted finding) {
	t.Helper()
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, finding := range reportOf(t, b, "--check", "--from", "-", "--format", "json").Findings {
		if finding.Code != "private-address" {
			codes = append(codes, finding.Code)
		}
		if finding.Code == code {
			wanted = finding
		}
	}
	if code == "" && len(codes) > 0 || code != "" && !slices.Contains(codes, code) {
		t.Errorf("findings %q, want %q", codes, code)
	}
	return wanted
}

// A client that crashes on a node of which a check says so.
func TestDERPMapNullNode(t *testing.T) {
	r := &region{RegionID: 900, RegionCode: "fra", RegionName: "Frankfurt", Nodes: []*node{nil}}
	wantFinding(t, &tailcfg.DERPMap{Regions: map[tailcfg.DERPRegionID]*region{900: r}}, "null-node")
	defer func() {
		if recover() == nil {
			t.Error("the client did not panic")
		}
	}()
	client := derphttp.NewRegionClient(key.NewNode(), t.Logf, netmon.NewStatic(), func() *region { return r })
	defer client.Close()
	_ = client.Connect(t.Context())
}

// What a client measures, and which home it chooses, where a check says that it goes wrong.
func TestDERPMapFindingsAboutTheHome(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	// second adds the same relay as another region.
	second := func(m *tailcfg.DERPMap) *region {
		r := relay.Region()
		r.RegionID, r.RegionCode, r.Nodes[0].RegionID, r.Nodes[0].Name = 901, "second", 901, "901a"
		m.Regions[901] = r
		return r
	}
	tcp := &netcheck.GetReportOpts{OnlyTCP443: true}
	const slow = 2 * time.Second
	for _, tc := range []struct {
		name string
		edit func(*tailcfg.DERPMap, *region)
		opts *netcheck.GetReportOpts
		code string
		home tailcfg.DERPRegionID
		slow bool
	}{
		{"good", func(*tailcfg.DERPMap, *region) {}, nil, "", 900, false},
		{"node without a region", func(_ *tailcfg.DERPMap, r *region) { r.Nodes[0].RegionID = 0 }, nil, "node-region-mismatch", 0, false},
		{"node of another region", func(_ *tailcfg.DERPMap, r *region) { r.Nodes[0].RegionID = 905 }, nil, "node-region-mismatch", 905, false},
		{"region of another number", func(_ *tailcfg.DERPMap, r *region) { r.RegionID = 905 }, nil, "region-id-mismatch", 900, false},
		{"region of another number, UDP blocked", func(_ *tailcfg.DERPMap, r *region) { r.RegionID = 905 }, tcp, "region-id-mismatch", 905, false},
		{"no home", func(_ *tailcfg.DERPMap, r *region) { r.NoMeasureNoHome = true }, nil, "no-home", 0, false},
		{"avoided", func(_ *tailcfg.DERPMap, r *region) { r.Avoid = true }, nil, "avoid", 900, false},
		{"STUN only", func(_ *tailcfg.DERPMap, r *region) { r.Nodes[0].STUNOnly = true }, nil, "no-relay", 900, false},
		{"no STUN beside a region with STUN", func(m *tailcfg.DERPMap, r *region) { r.Nodes[0].STUNPort = -1; second(m) }, nil, "no-stun", 901, true},
		{"no such STUN port", func(m *tailcfg.DERPMap, r *region) { r.Nodes[0].STUNPort = 70000; second(m) }, nil, "stun-port-range", 901, true},
		{"no STUN at all", func(_ *tailcfg.DERPMap, r *region) { r.Nodes[0].STUNPort = -1 }, nil, "no-stun", 900, true},
		{"STUN at an address of its own", func(_ *tailcfg.DERPMap, r *region) { r.Nodes[0].STUNTestIP = "::1" }, nil, "stun-test-ip", 900, true},
		{"a score of 0", func(m *tailcfg.DERPMap, _ *region) {
			m.HomeParams = &tailcfg.DERPHomeParams{RegionScore: map[tailcfg.DERPRegionID]float64{900: 0}}
		}, nil, "region-score", 900, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := relay.Map()
			tc.edit(m, m.Regions[900])
			wantFinding(t, m, tc.code)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			client := &netcheck.Client{NetMon: netmon.NewStatic(), Logf: t.Logf, SkipExternalNetwork: true}
			if err := client.Standalone(ctx, "127.0.0.1:0"); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			got, err := client.GetReport(ctx, m, tc.opts)
			if err != nil {
				t.Fatal(err)
			}
			if got.PreferredDERP != tc.home {
				t.Errorf("home %d, want %d; latencies %v", got.PreferredDERP, tc.home, got.RegionLatency)
			}
			if took := time.Since(start); tc.slow && took < slow {
				t.Errorf("took %v, want more than %v", took, slow)
			}
		})
	}
}

// Two nodes with one name: a client sends what is meant for either to either.
func TestDERPMapDuplicateNodeName(t *testing.T) {
	m := &tailcfg.DERPMap{Regions: map[tailcfg.DERPRegionID]*region{}}
	for id := tailcfg.DERPRegionID(900); id < 902; id++ {
		r := relaytest.Start(t, relaytest.Options{}).Region()
		r.RegionID, r.RegionCode, r.Nodes[0].RegionID, r.Nodes[0].Name = id, id.String(), id, "same"
		m.Regions[id] = r
	}
	wantFinding(t, m, "duplicate-node-name")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	client := &netcheck.Client{NetMon: netmon.NewStatic(), Logf: t.Logf, SkipExternalNetwork: true}
	if err := client.Standalone(ctx, "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	// Go's map decides each time which of them is asked.
	for range 50 {
		got, err := client.GetReport(ctx, m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.RegionLatency) < 2 {
			return
		}
	}
	t.Error("50 times both regions were measured")
}
