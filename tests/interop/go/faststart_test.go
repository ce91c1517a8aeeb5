package interop

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"strings"
	"testing"

	"tailscale.com/derp"
	"tailscale.com/types/key"

	"towpath.invalid/interop/relaytest"
)

// fastStart writes the upgrade of a client that knows the relay's key, with rest behind it in the same record.
func fastStart(t *testing.T, relay *relaytest.Relay, rest ...[]byte) (*tls.Conn, *bufio.Reader) {
	t.Helper()
	conn := dial(t, relay, tls.VersionTLS13)
	setDeadline(t, conn, answerLimit)
	request := strings.Replace(upgradeRequest(relay), "\r\n\r\n", "\r\nDerp-Fast-Start: 1\r\n\r\n", 1)
	if _, err := conn.Write(append([]byte(request), bytes.Join(rest, nil)...)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// wantFrame reads a frame and demands its type.
func wantFrame(t *testing.T, from *bufio.Reader, want derp.FrameType) []byte {
	t.Helper()
	typ, size, err := derp.ReadFrameHeader(from)
	if err != nil {
		t.Fatalf("frame %v: %v", want, err)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(from, payload); err != nil {
		t.Fatal(err)
	}
	if typ != want {
		t.Fatalf("frame %v of %d bytes, want %v", typ, size, want)
	}
	return payload
}

// The request, the login and the first frames in one record: nothing of it is lost, and the answers are the frames
// alone, ServerKey among them.
func TestFastStartWithEverythingInOneWrite(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{PrivateKey: key.NewNode()})
	server, me := relay.ReadKey(t).Public(), key.NewNode()
	public := me.Public().AppendTo(nil)
	_, from := fastStart(t, relay,
		clientInfo(me, server, []byte(`{"version":2}`)),
		encode(derp.FrameNotePreferred, []byte{1}),
		encode(0x20, []byte("of a type that nobody knows")),
		encode(derp.FrameSendPacket, public, []byte("to myself")),
	)
	if got, want := wantFrame(t, from, derp.FrameServerKey), serverKeyFrame(server)[5:]; string(got) != want {
		t.Errorf("ServerKey %q, want %q", got, want)
	}
	wantFrame(t, from, derp.FrameServerInfo)
	if got := wantFrame(t, from, derp.FrameRecvPacket); string(got) != string(public)+"to myself" {
		t.Errorf("packet %q", got)
	}
	relay.WaitMetric(t, "derp_current_home_connections", 1)
}

// A client that starts fast and is refused is told so by the end of the connection alone: no HTTP response, no frame.
func TestFastStartThatIsRefused(t *testing.T) {
	relay := relaytest.Start(t, relaytest.Options{})
	_, from := fastStart(t, relay, clientInfo(key.NewNode(), key.NewNode().Public(), []byte(`{"version":2}`)))
	wantFrame(t, from, derp.FrameServerKey)
	if rest, err := io.ReadAll(from); len(rest) > 0 {
		t.Errorf("behind ServerKey %q (%v), want nothing", rest, err)
	}
}
