package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"
)

// To whom the relay gives the mesh key when it dials.
var meshTrustCases = []testCase{
	{"mesh-link-untrusted", needsServer, 20 * time.Second, relayCase(linkUntrusted)},
	{"mesh-link-untrusted-address", needsServer, 20 * time.Second, relayCase(linkUntrustedAddress)},
}

// linkUntrusted: a peer whose certificate is of another authority, or for another name than its entry's HOST,
// gets no login: a login would give it the mesh key.
func linkUntrusted(ctx context.Context, r *meshRelay) (string, error) {
	stranger, err := newAuthority()
	if err != nil {
		return "", err
	}
	return refusesCertificates(ctx, r, []presented{
		{"", stranger, relayHost},
		{"named.mesh.test", stranger, "named.mesh.test"},
		{"named.mesh.test", r.ca, "another.mesh.test"},
		{"named.mesh.test", r.ca, relayHost}, // That of DIALHOST.
	})
}

// linkUntrustedAddress: upstream fails this case, because the relay under test is stricter on purpose.
// Upstream compares the certificate's name with the SNI that it sent, and sends none to a HOST that is an IP
// address, so it gives the mesh key to whoever there has a certificate of a trusted authority for any name.
func linkUntrustedAddress(ctx context.Context, r *meshRelay) (string, error) {
	return refusesCertificates(ctx, r, []presented{{"", r.ca, "another.mesh.test"}})
}

// presented is a certificate for this host, by this authority, at a peer of this name.
type presented struct {
	name string
	by   *authority
	host string
}

// refusesCertificates fails unless the relay breaks off the handshake with each peer, comes back later, and
// serves its clients meanwhile.
func refusesCertificates(ctx context.Context, r *meshRelay, certs []presented) (string, error) {
	heard := make([]chan string, len(certs))
	with := ""
	for i, c := range certs {
		p, err := newMeshPeer(r, c.name)
		if err != nil {
			return "", err
		}
		if p.cert, err = c.by.issue(c.host); err != nil {
			return "", err
		}
		heard[i] = make(chan string, 8)
		if err := answerTLS(ctx, p, heard[i]); err != nil {
			return "", err
		}
		with += "," + p.entry
	}
	if err := r.start(ctx, r.keyed(), "-mesh-with="+with[1:]); err != nil {
		return "", err
	}
	const attempts = 2
	for i, c := range certs {
		for attempt := range attempts {
			select {
			case said := <-heard[i]:
				if said != "" {
					return "", fmt.Errorf("certificate for %s at peer %q: attempt %d said %.60q",
						c.host, c.name, attempt+1, said)
				}
			case <-ctx.Done():
				return "", fmt.Errorf("certificate for %s at peer %q: no attempt %d",
					c.host, c.name, attempt+1)
			}
		}
	}
	return fmt.Sprintf("no login at %d, each tried %d times", len(certs), attempts), clientsServed(ctx, r)
}

// answerTLS takes TLS connections as p and tells what each client said, which is nothing if it refused.
func answerTLS(ctx context.Context, p *meshPeer, said chan<- string) error {
	listener, err := tls.Listen("tcp", p.addr, &tls.Config{Certificates: []tls.Certificate{p.cert}})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			b := make([]byte, 1000)
			n, _ := conn.Read(b)
			conn.Close()
			said <- string(b[:n])
		}
	}()
	return nil
}
