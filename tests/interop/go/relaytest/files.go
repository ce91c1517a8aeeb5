package relaytest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"tailscale.com/types/key"
)

// writeCertificate makes a self-signed ECDSA P-256 certificate, valid for host and localhost, and writes
// cert.pem and key.pem.
func writeCertificate(t testing.TB, dir string, host netip.Addr) *x509.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: host.String()},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IPAddresses:           []net.IP{host.AsSlice()},
		DNSNames:              []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", der)
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", pkcs8)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func pin(cert *x509.Certificate) string {
	return fmt.Sprintf("sha256-raw:%x", sha256.Sum256(cert.Raw))
}

// keyFile is derper's format.
type keyFile struct {
	PrivateKey key.NodePrivate
}

func (r *Relay) writeKey(t testing.TB, private key.NodePrivate) {
	t.Helper()
	b, err := json.MarshalIndent(keyFile{private}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(r.KeyFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ReadKey returns the private key that the key file holds.
func (r *Relay) ReadKey(t testing.TB) key.NodePrivate {
	t.Helper()
	b, err := os.ReadFile(r.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	var file keyFile
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatalf("key file: %v", err)
	}
	return file.PrivateKey
}

// Foreign is the path of a program that tests/interop/foreign/install has put into TOWPATH_FOREIGN, or into the
// repository's .foreign.
func Foreign(t testing.TB, program string) string {
	t.Helper()
	dir := os.Getenv("TOWPATH_FOREIGN")
	if dir == "" {
		dir = above(t, ".foreign")
	}
	path := filepath.Join(dir, "bin", program)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is missing; run tests/interop/foreign/install: %v", program, err)
	}
	return path
}

// above finds a directory in those that the test runs in. Where there is none, the name itself is returned.
func above(t testing.TB, name string) string {
	t.Helper()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; here != filepath.Dir(here); here = filepath.Dir(here) {
		path := filepath.Join(here, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return name
}
