// What `towpath-relay derpmap` says that Headscale makes of a file is what Headscale makes of it.
package headscale

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/juanfont/headscale/hscontrol/derp"
	"github.com/juanfont/headscale/hscontrol/types"
	"tailscale.com/tailcfg"
)

// maps are the good and bad maps that the checks of towpath-relay are tested with, too.
const maps = "../../../../derpmap/tests/maps"

// files returns the maps with this extension.
func files(t *testing.T, extension string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(maps, "*"+extension))
	if err != nil || len(names) == 0 {
		t.Fatalf("no maps %s in %s: %v", extension, maps, err)
	}
	return names
}

// towpath runs the relay's derpmap, and returns what it prints and its exit code.
func towpath(t *testing.T, args ...string) ([]byte, int) {
	t.Helper()
	relay := os.Getenv("TOWPATH_RELAY")
	if relay == "" {
		t.Fatal("TOWPATH_RELAY is not set")
	}
	cmd := exec.Command(relay, append([]string{"derpmap"}, args...)...)
	out, err := cmd.Output()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	return out, cmd.ProcessState.ExitCode()
}

// refused says whether the check finds that nobody takes the file.
func refused(t *testing.T, format, file string) bool {
	t.Helper()
	out, code := towpath(t, "--from", file, "--format", format, "--check", "--report", "json")
	if code == 2 && len(out) == 0 {
		return true
	}
	var report struct {
		Findings []struct {
			RefusesFile bool `json:"refuses_file"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("exit code %d: %v: %s", code, err, out)
	}
	for _, finding := range report.Findings {
		if finding.RefusesFile {
			return true
		}
	}
	return false
}

// comparable takes out what makes no difference: Headscale's shuffle, and what it leaves out.
func comparable(m *tailcfg.DERPMap) map[int]*tailcfg.DERPRegion {
	regions := map[int]*tailcfg.DERPRegion{}
	for id, region := range m.Regions {
		if region == nil {
			continue
		}
		region.Nodes = slices.DeleteFunc(region.Nodes, func(n *tailcfg.DERPNode) bool { return n == nil })
		slices.SortFunc(region.Nodes, func(a, b *tailcfg.DERPNode) int {
			return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.HostName, b.HostName))
		})
		if len(region.Nodes) == 0 {
			region.Nodes = nil
		}
		regions[id] = region
	}
	return regions
}

func check(t *testing.T, format, file string, cfg types.DERPConfig) {
	t.Helper()
	theirs, err := derp.GetDERPMap(cfg)
	if got := refused(t, format, file); got != (err != nil) {
		t.Fatalf("Headscale: %v; the check says that it refuses the file: %v", err, got)
	}
	out, code := towpath(t, "--from", file, "--format", "json")
	if err != nil {
		if code != 2 {
			t.Errorf("exit code %d for a file that Headscale refuses (%v), want 2", code, err)
		}
		return
	}
	// Headscale sends its map as JSON, which has no room for every number of YAML.
	_, unsendable := json.Marshal(theirs)
	if unsendable != nil || filepath.Base(file) == "out-of-range.json" {
		if code != 1 {
			t.Errorf("exit code %d for numbers that a map cannot be written with, want 1", code)
		}
		return
	}
	var ours tailcfg.DERPMap
	if err := json.Unmarshal(out, &ours); err != nil {
		t.Fatalf("exit code %d: %v: %s", code, err, out)
	}
	if got, want := comparable(&ours), comparable(theirs); !reflect.DeepEqual(got, want) {
		g, _ := json.MarshalIndent(got, "", " ")
		w, _ := json.MarshalIndent(want, "", " ")
		t.Errorf("towpath-relay reads\n%s\nHeadscale reads\n%s", g, w)
	}
}

func TestPathsAreReadAlike(t *testing.T) {
	for _, file := range files(t, ".yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			check(t, "headscale", file, types.DERPConfig{Paths: []string{file}})
		})
	}
}

func TestURLsAreReadAlike(t *testing.T) {
	server := httptest.NewServer(http.FileServer(http.Dir(maps)))
	defer server.Close()
	for _, file := range files(t, ".json") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			if b, _ := os.ReadFile(file); bytes.Contains(b, []byte("derpMap")) {
				t.Skip("a policy")
			}
			address, err := url.Parse(server.URL + "/" + filepath.Base(file))
			if err != nil {
				t.Fatal(err)
			}
			check(t, "json", file, types.DERPConfig{URLs: []url.URL{*address}})
		})
	}
}

// A null takes away a region of an earlier source.
func TestNullRemoves(t *testing.T) {
	dir := t.TempDir()
	one, none := filepath.Join(dir, "one.yaml"), filepath.Join(dir, "none.yaml")
	for file, text := range map[string]string{one: "regions: {900: {regionid: 900}, 901: {regionid: 901}}", none: "regions: {900: null}"} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := derp.GetDERPMap(types.DERPConfig{Paths: []string{one, none}})
	if err != nil || len(m.Regions) != 1 || m.Regions[901] == nil {
		t.Errorf("regions %v, %v; want 901 alone", m, err)
	}
}

// The order of a region's nodes is drawn anew at each refresh.
func TestRefreshShuffles(t *testing.T) {
	cfg := types.DERPConfig{Paths: []string{filepath.Join(t.TempDir(), "two.yaml")}}
	text := "regions: {900: {regionid: 900, nodes: [{name: a}, {name: b}, {name: c}]}}"
	if err := os.WriteFile(cfg.Paths[0], []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first := ""
	for range 100 {
		m, err := derp.GetDERPMap(cfg)
		if err != nil {
			t.Fatal(err)
		}
		order := ""
		for _, node := range m.Regions[900].Nodes {
			order += node.Name
		}
		if first = cmp.Or(first, order); order != first {
			return
		}
	}
	t.Errorf("100 refreshes kept the order %s", first)
}
