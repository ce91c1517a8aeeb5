package tailnet

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"tailscale.com/net/captivedetection"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"

	"towpath.invalid/interop/relaytest"
)

// By the detector that is in every client: who asks the relay's port 80 is not told of a captive
// portal, and who asks there and gets the answer of somebody else is. The detector asks over interfaces other than
// loopback, at port 80 only, and Tailscale's own servers as well, which cannot be reached from here.
func TestCaptivePortalDetector(t *testing.T) {
	const address = "203.0.113.1"
	ip(t, "link set lo up")
	ip(t, "link add wifi type bridge")
	ip(t, "address add "+address+"/24 dev wifi")
	ip(t, "link set wifi up")

	page := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Welcome!") }
	empty := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Tailscale-Response", r.Header.Get("X-Tailscale-Challenge"))
		w.WriteHeader(http.StatusNoContent)
	}
	for _, tc := range []struct {
		name string
		// portal is nil where there is none.
		portal http.HandlerFunc
		relay  bool
		// captive and answered are what the detector says, and whether it had an answer to say it from.
		captive, answered bool
	}{
		{name: "relay", relay: true, answered: true},
		{name: "nobody"},
		{name: "login page", portal: page, captive: true, answered: true},
		{name: "redirect", portal: http.RedirectHandler("/login", http.StatusFound).ServeHTTP, captive: true, answered: true},
		{name: "204 for everything", portal: empty, captive: true, answered: true},
		{name: "204 with the challenge", portal: echo, captive: true, answered: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			relay := relaytest.Configure(t, relaytest.Options{Host: address, Port80: 80})
			if tc.relay {
				relay.Launch(t)
			}
			if tc.portal != nil {
				listener, err := net.Listen("tcp", relay.Port80.String())
				if err != nil {
					t.Fatal(err)
				}
				portal := &http.Server{Handler: tc.portal}
				go portal.Serve(listener)
				defer portal.Close()
			}
			derpMap := relay.Map()
			derpMap.Regions[relaytest.RegionID].Nodes[0].CanPort80 = true

			captive, failures := detect(t, derpMap)
			if captive != tc.captive {
				t.Errorf("a captive portal is found: %v, want %v", captive, tc.captive)
			}
			// It takes a failure for no portal, and tells its log only.
			if answered := !strings.Contains(failures, "http://"+address+"/"); answered != tc.answered {
				t.Errorf("port 80 answers: %v, want %v; it failed with\n%s", answered, tc.answered, failures)
			}
		})
	}
}

// detect returns what the detector finds, and the lines of its log about requests that failed.
func detect(t *testing.T, derpMap *tailcfg.DERPMap) (captive bool, failures string) {
	t.Helper()
	var mu sync.Mutex
	var lines []string
	detector := captivedetection.NewDetector(func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if line := fmt.Sprintf(format, args...); strings.Contains(line, "failed") {
			lines = append(lines, line)
		}
	})
	captive = detector.Detect(t.Context(), netmon.NewStatic(), derpMap, relaytest.RegionID)
	mu.Lock()
	defer mu.Unlock()
	return captive, strings.Join(lines, "\n")
}
