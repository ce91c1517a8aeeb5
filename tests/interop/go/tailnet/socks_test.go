package tailnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"golang.org/x/net/proxy"
)

// Dial makes a site the dialler of the connection to its own SOCKS5 server.
func (s site) Dial(network, address string) (net.Conn, error) { return s.dial(network, address) }

func socksConnect(ctx context.Context, s site, address string) (net.Conn, error) {
	dialer, err := proxy.SOCKS5("tcp", socksAddress, nil, s)
	if err != nil {
		return nil, err
	}
	return dialer.(proxy.ContextDialer).DialContext(ctx, "tcp", address)
}

// socksUDP sends datagrams to one address through a SOCKS5 server (RFC 1928 section 7).
type socksUDP struct {
	net.Conn // to the server's UDP relay
	control  net.Conn
	header   []byte
}

// associateUDP asks the site's SOCKS5 server for a UDP association. IPv4 only, as the sites are.
func associateUDP(s site, to netip.AddrPort) (*socksUDP, error) {
	const version, noAuthentication, associate, ipv4 = 5, 0, 3, 1
	control, err := s.dial("tcp", socksAddress)
	if err != nil {
		return nil, err
	}
	if _, err := control.Write([]byte{version, 1, noAuthentication}); err != nil {
		return nil, err
	}
	var method [2]byte
	if _, err := io.ReadFull(control, method[:]); err != nil {
		return nil, err
	}
	if method != [2]byte{version, noAuthentication} {
		return nil, fmt.Errorf("SOCKS5 method %v", method)
	}
	if _, err := control.Write([]byte{version, associate, 0, ipv4, 0, 0, 0, 0, 0, 0}); err != nil {
		return nil, err
	}
	var reply [10]byte
	if _, err := io.ReadFull(control, reply[:]); err != nil {
		return nil, err
	}
	if reply[1] != 0 || reply[3] != ipv4 {
		return nil, fmt.Errorf("SOCKS5 reply %v", reply)
	}
	conn, err := s.dial("udp", netip.AddrPortFrom(address(reply[4:])).String())
	if err != nil {
		return nil, err
	}
	header := append([]byte{0, 0, 0, ipv4}, to.Addr().AsSlice()...)
	return &socksUDP{conn, control, append(header, byte(to.Port()>>8), byte(to.Port()))}, nil
}

// address reads an IPv4 address and a port.
func address(b []byte) (netip.Addr, uint16) {
	return netip.AddrFrom4([4]byte(b)), uint16(b[4])<<8 | uint16(b[5])
}

func (c *socksUDP) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(append(bytes.Clone(c.header), b...))
	return max(n-len(c.header), 0), err
}

func (c *socksUDP) Read(b []byte) (int, error) {
	datagram := make([]byte, len(c.header)+len(b))
	n, err := c.Conn.Read(datagram)
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(datagram[:n], c.header) {
		return 0, errors.New("datagram from somewhere else")
	}
	return copy(b, datagram[len(c.header):n]), nil
}

func (c *socksUDP) Close() error { return errors.Join(c.Conn.Close(), c.control.Close()) }
