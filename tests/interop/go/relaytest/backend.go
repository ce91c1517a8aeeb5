package relaytest

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
)

// allowAll is the URL of a backend of admission that allows every client. The relays of most tests ask it, derper as ours, so that
// what they show holds for relays that admit their clients.
var allowAll = sync.OnceValue(func() string {
	answer := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"Allow":true}`) }
	return httptest.NewServer(http.HandlerFunc(answer)).URL + "/verify"
})
