package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/tailscale/hujson"
	"gopkg.in/yaml.v3"
	"tailscale.com/tailcfg"
)

// reader is one of those that derpmap speaks for: the name of its format, and the code that it reads maps with.
type reader struct {
	format string
	read   func([]byte) (*tailcfg.DERPMap, error)
	words  []string // that a mutation may put into a map
}

var mapReaders = []reader{
	{"json", readJSONMap, jsonWords},
	{"headscale", readYAMLMap, yamlWords},
	{"tailscale-policy", readPolicyMap, append([]string{"//", "/*", "*/", "// c\n", "/* c */", ",", `"derpMap":`}, jsonWords...)},
}

// A client reads the map of its control server, and Headscale its derp.urls, with encoding/json.
func readJSONMap(b []byte) (*tailcfg.DERPMap, error) {
	m := new(tailcfg.DERPMap)
	return m, json.Unmarshal(b, m)
}

// Headscale reads its derp.paths with yaml.v3 (loadDERPMapFromPath), and keeps their regions alone. A panic takes it down.
func readYAMLMap(b []byte) (m *tailcfg.DERPMap, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	m = new(tailcfg.DERPMap)
	err = yaml.Unmarshal(b, m)
	m.HomeParams, m.OmitDefaultRegions = nil, false
	return m, err
}

var memberAlone = regexp.MustCompile(`(?is)^\x{feff}?([\s\f]|//[^\n]*\n|/\*.*?\*/)*"derpMap"`)

// What reads a policy file at Tailscale is not public. hujson is theirs.
func readPolicyMap(b []byte) (*tailcfg.DERPMap, error) {
	// A member alone is to be pasted into a file.
	if memberAlone.Match(b) {
		b = slices.Concat([]byte("{"), b, []byte("\n}"))
	}
	b, err := hujson.Standardize(slices.Clone(b))
	if err != nil {
		return nil, err
	}
	var policy struct {
		DERPMap *tailcfg.DERPMap `json:"derpMap"`
	}
	err = json.Unmarshal(b, &policy)
	if policy.DERPMap == nil {
		policy.DERPMap = new(tailcfg.DERPMap)
	}
	return policy.DERPMap, err
}

var (
	numberWords = []string{
		"0", "-0", "-1", "0443", "0900", "1e3", "1E+2", "900.0", "900.7", "1.", ".5", "0x384", "0b11", "0o17", "0b-1", "+900", "9_00",
		"99999999999999999999", "-99999999999999999999", "1e999", "-1e999", "9223372036854775807", "9223372036854775808", "NaN", "Infinity",
	}
	jsonWords = slices.Concat(numberWords, []string{
		"null", "true", "false", `"true"`, `"900"`, "True", "nul", "{}", "[]", "[null]", `{"a":1}`, ",", ":", "{", "}", "[", "]", `"`,
		`"\u0041"`, `"\ud83d\ude00"`, `"\ud800"`, `"\x41"`, `"\/"`, `"\`, "// c\n", "/* c */", "\t", "\f", "\u00a0", "\ufeff", "\u2028", "\x00",
		"\x07", "\x7f", "\x80", "\xe4\xb8", "\xff", `"Nodes": null,`, `"Regions": {},`, `"RegionID": 901,`, `"NODES":[{"HostName":"x"}],`,
		`"omitDefaultRegions":true,`, `"OmitDefaultRegions":true,`, `"HomeParams":{"RegionScore":{"900":2}},`, `"homeparams":null,`,
		`"` + "\u017f" + `tunport":5,`, `"HO` + "\u017f" + `TNAME":"k",`, "'a'", "a", "-", "+", "--",
	})
	yamlWords = slices.Concat(numberWords, []string{
		"null", "~", "true", "True", "yes", "off", "'yes'", `"900"`, ".nan", ".inf", "-.inf", ".NaN", "2024-01-02", "<<", "<<: *a\n", "<<: {a: b}",
		"<<: [*a, {b: c}]", "&a ", "*a", "&a", "* a", "!!int ", "!!str ", "!!float ", "!!null ", "!!bool ", "!!binary ", "!!binary Zm9v", "!x ", "! ", "!<tag:yaml.org,2002:str> ",
		"!!map ", "!!seq ", "!e!x ", "- ", "-", "? ", "?", ": ", ":", "#", " #c", "# c\n", "\t", " ", "  ", "    ", "\n", "\r\n", "\r", "\u0085", "\u2028", "---\n", "--- ",
		"...\n", "%YAML 1.1\n---\n", "%YAML 1.2\n---\n", "%TAG !e! tag:e,1:\n---\n", "%FOO x\n", "|\n", ">\n", "|-\n", ">+2\n", "|0\n", "'", "''", `"`, `\`, `"\x41"`, `"\u00e9"`,
		`"\/"`, `"\q"`, `"\ud800"`, "{", "}", "[", "]", ",", "[]", "{}", "[a: b]", "{a}", "{a: , b}", "[a, b,]", "[?a]", "{? a : b}", "@", "`", "%", "|", ">", "&", "!", "a: b: c",
		"\x00", "\x07", "\x7f", "\x80", "\xe4\xb8", "\xff", "regions:\n", "regionid: 901\n", "RegionID: 901\n", "hostname: x\n", "homeparams: {}\n", "omitdefaultregions: true\n",
		"nodes: [~]\n", "nodes: ~\n", "900: ~\n", "900: {}\n", "~: {}\n", "[a]: b\n", "{a: b}: c\n", "*a : b\n",
	})
)

// mutation changes a map in one place or as a whole.
type mutation func(r *rand.Rand, words []string, b []byte) []byte

var mutations = []mutation{
	// A byte is another one, is gone, or is there twice.
	func(r *rand.Rand, _ []string, b []byte) []byte {
		at := r.IntN(len(b))
		return splice(b, at, at+1, []byte{byte(r.IntN(256))})
	},
	func(r *rand.Rand, _ []string, b []byte) []byte {
		at := r.IntN(len(b))
		return splice(b, at, at+1, nil)
	},
	func(r *rand.Rand, _ []string, b []byte) []byte {
		from := r.IntN(len(b))
		to := min(len(b), from+1+r.IntN(12))
		return splice(b, to, to, b[from:to])
	},
	// A word is put in, or for another one.
	insertWord, insertWord, insertWord, replaceToken, replaceToken, replaceToken, replaceToken,
	// Lines: gone, there twice, exchanged, moved to the side, joined, cut off, ended otherwise.
	func(r *rand.Rand, _ []string, b []byte) []byte {
		l := lines(b)
		at := r.IntN(len(l))
		return join(slices.Delete(l, at, at+1))
	},
	func(r *rand.Rand, _ []string, b []byte) []byte {
		l := lines(b)
		at := r.IntN(len(l))
		return join(slices.Insert(l, r.IntN(len(l)+1), l[at]))
	},
	func(r *rand.Rand, _ []string, b []byte) []byte {
		l := lines(b)
		i, j := r.IntN(len(l)), r.IntN(len(l))
		l[i], l[j] = l[j], l[i]
		return join(l)
	},
	indent, indent,
	func(r *rand.Rand, _ []string, b []byte) []byte {
		l := lines(b)
		at := r.IntN(len(l))
		l[at] = bytes.TrimRight(l[at], "\n")
		return join(l)
	},
	func(r *rand.Rand, _ []string, b []byte) []byte { return b[:r.IntN(len(b))] },
	func(r *rand.Rand, _ []string, b []byte) []byte {
		return bytes.ReplaceAll(b, []byte("\n"), []byte([]string{"\r\n", "\r", "\u0085", "\u2028", "\n\n", " \n", "\n#c\n", " # c\n", "\n\t# c\n"}[r.IntN(9)]))
	},
	// Letters of a name.
	func(r *rand.Rand, _ []string, b []byte) []byte {
		from := r.IntN(len(b))
		to := min(len(b), from+1+r.IntN(9))
		change := bytes.ToUpper
		if r.IntN(2) == 0 {
			change = bytes.ToLower
		}
		return splice(b, from, to, change(b[from:to]))
	},
	// Encodings.
	func(r *rand.Rand, _ []string, b []byte) []byte {
		switch r.IntN(4) {
		case 0:
			return append([]byte("\ufeff"), b...)
		case 1:
			return toUTF16(b, true, r.IntN(8) > 0)
		case 2:
			return toUTF16(b, false, r.IntN(8) > 0)
		}
		return bytes.ReplaceAll(b, []byte("a"), []byte("\u00e9"))
	},
}

func splice(b []byte, from, to int, with []byte) []byte {
	return slices.Concat(b[:from], with, b[to:])
}

func lines(b []byte) [][]byte { return bytes.SplitAfter(b, []byte("\n")) }

func join(lines [][]byte) []byte { return bytes.Join(lines, nil) }

func insertWord(r *rand.Rand, words []string, b []byte) []byte {
	at := r.IntN(len(b) + 1)
	// Mostly where a word begins or a line does.
	if r.IntN(4) > 0 {
		for at > 0 && at < len(b) && !strings.ContainsRune(" \n\t:,{[", rune(b[at-1])) {
			at--
		}
	}
	return splice(b, at, at, []byte(words[r.IntN(len(words))]))
}

// replaceToken puts a word for a name, a number or a text.
func replaceToken(r *rand.Rand, words []string, b []byte) []byte {
	isToken := func(c byte) bool { return !strings.ContainsRune(" \n\t\r:,{}[]#", rune(c)) }
	from := r.IntN(len(b))
	for range len(b) {
		if isToken(b[from]) {
			break
		}
		from = (from + 1) % len(b)
	}
	for from > 0 && isToken(b[from-1]) {
		from--
	}
	to := from
	for to < len(b) && isToken(b[to]) {
		to++
	}
	return splice(b, from, to, []byte(words[r.IntN(len(words))]))
}

func indent(r *rand.Rand, _ []string, b []byte) []byte {
	l := lines(b)
	at := r.IntN(len(l))
	for until := at + 1 + r.IntN(3); at < min(until, len(l)); at++ {
		switch r.IntN(4) {
		case 0:
			l[at] = append([]byte("\t"), l[at]...)
		case 1:
			l[at] = bytes.TrimPrefix(l[at], []byte("  "))
		default:
			l[at] = append([]byte("  "), l[at]...)
		}
	}
	return join(l)
}

func toUTF16(b []byte, little, whole bool) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune("\ufeff" + string(b))) {
		if little {
			out = append(out, byte(unit), byte(unit>>8))
		} else {
			out = append(out, byte(unit>>8), byte(unit))
		}
	}
	if !whole {
		out = out[:len(out)-1]
	}
	return out
}

// mutated returns maps for a reader: those of the corpus as they are, and so many changed ones, always the same.
func mutated(t *testing.T, rd reader, count int) [][]byte {
	t.Helper()
	var corpus [][]byte
	for _, pattern := range []string{"*.json", "*.jsonc", "*.hujson", "*.yaml", "changes/*.json", "changes/*.hujson", "changes/*.yaml"} {
		files, _ := filepath.Glob(filepath.Join(maps, pattern))
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			corpus = append(corpus, b)
			if _, err := readJSONMap(b); err == nil && rd.format == "tailscale-policy" {
				corpus = append(corpus, slices.Concat([]byte(`{"derpMap":`), b, []byte("}")))
			}
		}
	}
	if len(corpus) < 60 {
		t.Fatalf("%d maps in the corpus", len(corpus))
	}
	// Changes of what is refused as it is show nothing.
	var good [][]byte
	for _, b := range corpus {
		if _, err := rd.read(b); err == nil && len(b) > 0 {
			good = append(good, b)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range count {
		b := good[r.IntN(len(good))]
		for range 1 + r.IntN(3) {
			if len(b) > 0 {
				b = mutations[r.IntN(len(mutations))](r, rd.words, b)
			}
		}
		corpus = append(corpus, b)
	}
	return corpus
}

// mapVerdict is what derpmap says of a file.
type mapVerdict struct {
	File     string
	Error    string // for which it is no map at all
	Findings []struct {
		Code, Severity, Message, Place string
		RefusesFile                    bool `json:"refuses_file"`
	}
	Map *tailcfg.DERPMap
}

func (v *mapVerdict) refusal() string {
	if v.Error != "" {
		return v.Error
	}
	for _, finding := range v.Findings {
		if finding.RefusesFile {
			return finding.Code + ": " + finding.Message
		}
	}
	return ""
}

// mapVerdicts has one process check all maps.
func mapVerdicts(t *testing.T, format string, all [][]byte) []mapVerdict {
	t.Helper()
	if os.Getenv("TOWPATH_RELAY_KIND") == "derper" {
		t.Skip("derper reads no maps")
	}
	dir := t.TempDir()
	args := []string{"derpmap", "--check", "--report", "json", "--format", format, "--from"}
	for i, b := range all {
		name := strconv.Itoa(i)
		args = append(args, name)
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(os.Getenv("TOWPATH_RELAY"), args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatal(err)
	}
	var found []mapVerdict
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var v mapVerdict
		if err := decoder.Decode(&v); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("after %d reports: %v", len(found), err)
		}
		if v.File != strconv.Itoa(len(found)) {
			t.Fatalf("report %d is of %q", len(found), v.File)
		}
		found = append(found, v)
	}
	if len(found) != len(all) {
		t.Fatalf("%d reports on %d maps", len(found), len(all))
	}
	return found
}

// excused returns why the two may differ over a map, if they may: docs/derpmap.md has the list.
func excused(format string, b []byte, refusal string, err error) string {
	switch {
	case strings.Contains(refusal, "levels deep"), strings.Contains(refusal, "values, aliases expanded"):
		return "bounds of derpmap"
	case err != nil && strings.Contains(err.Error(), "excessive aliasing"):
		return "bounds of yaml.v3"
	case format == "headscale" && bytes.Count(b, []byte("\ufeff")) > 1:
		return "yaml.v3 looks for a byte order mark where its buffer begins"
	case format == "headscale" && len(b)%2 == 1 && (bytes.HasPrefix(b, []byte("\xff\xfe")) || bytes.HasPrefix(b, []byte("\xfe\xff"))):
		return "half a character is seen a few bytes earlier or later"
	case refusal == "" && err != nil && strings.Contains(err.Error(), "cannot unmarshal !!null `` into"):
		return "a map that is tagged as null"
	}
	return ""
}

// canonical gives a map the form in which two can be compared: what JSON cannot say is left out on both sides.
func canonical(t *testing.T, m *tailcfg.DERPMap) string {
	t.Helper()
	if m.HomeParams != nil && len(m.HomeParams.RegionScore) == 0 {
		m.HomeParams = nil
	}
	if m.Regions == nil {
		m.Regions = map[tailcfg.DERPRegionID]*region{}
	}
	for _, r := range m.Regions {
		if r == nil {
			continue
		}
		if r.Nodes == nil {
			r.Nodes = []*node{}
		}
		for _, f := range []*float64{&r.Latitude, &r.Longitude} {
			if math.IsNaN(*f) || math.IsInf(*f, 0) {
				*f = 0
			}
		}
	}
	b, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What derpmap takes and refuses is what the readers themselves take and refuse, and it sees in a map what they see.
func TestDERPMapReadersOverMutatedMaps(t *testing.T) {
	count := 4000
	if s := os.Getenv("TOWPATH_MUTATIONS"); s != "" {
		count, _ = strconv.Atoi(s)
	}
	for _, rd := range mapReaders {
		t.Run(rd.format, func(t *testing.T) {
			all := mutated(t, rd, count)
			taken, differ := 0, 0
			fail := func(b []byte, format string, args ...any) {
				if differ++; differ <= 20 {
					t.Errorf(format+"\n%q", append(args, b)...)
				}
			}
			for i, v := range mapVerdicts(t, rd.format, all) {
				b := all[i]
				theirs, err := rd.read(b)
				refusal := v.refusal()
				if excused(rd.format, b, refusal, err) != "" {
					continue
				}
				if (err != nil) != (refusal != "") {
					fail(b, "the reader: %v; derpmap: %q", err, refusal)
					continue
				}
				if err != nil {
					continue
				}
				taken++
				if g, w := canonical(t, v.Map), canonical(t, theirs); g != w {
					fail(b, "derpmap sees\n%s\nthe reader sees\n%s", g, w)
				}
			}
			if differ > 0 {
				t.Errorf("%d of %d maps", differ, len(all))
			}
			if taken < len(all)/5 {
				t.Errorf("%d of %d maps are taken, too few to show much", taken, len(all))
			}
		})
	}
}
