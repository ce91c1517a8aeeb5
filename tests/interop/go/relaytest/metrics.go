package relaytest

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// metricLimit bounds the wait for a metric.
const metricLimit = 5 * time.Second

// WaitMetric waits until the sum of a metric's samples is want. Derper serves what it counts on its TLS port to
// whoever is on the same host, under the same names.
func (r *Relay) WaitMetric(t testing.TB, name string, want float64) {
	t.Helper()
	deadline := time.Now().Add(metricLimit)
	for {
		got, found := r.Metric(t, name)
		if found && got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v (there: %v), want %v", name, got, found, want)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// Metric is the sum of a metric's samples, or one of them where its labels are given as in name{label="value"}, if there
// are any.
func (r *Relay) Metric(t testing.TB, name string) (sum float64, found bool) {
	t.Helper()
	url := fmt.Sprintf("http://%s/metrics", r.admin)
	if r.Stock {
		url = fmt.Sprintf("https://%s/debug/varz", r.Addr)
	}
	client := http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
		DisableKeepAlives: true,
	}}
	res, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s", url, res.Status)
	}
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		sample, value, _ := strings.Cut(lines.Text(), " ")
		family, _, _ := strings.Cut(sample, "{")
		if family != name && sample != name {
			continue
		}
		number, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", sample, err)
		}
		sum += number
		found = true
	}
	return sum, found
}
