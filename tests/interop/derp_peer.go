package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/tailcfg"
	"tailscale.com/types/key"
)

// loginMode is one of the ways a stock client comes to a DERP connection.
type loginMode int

const (
	// fastStart: TLS 1.3, the server's key read from its meta certificate, no HTTP response.
	fastStart loginMode = iota
	// overTLS13: TLS 1.3, but the client does not see the certificates (as behind a middlebox that
	// terminates TLS), so it asks for the 101 response. The judge sees the plaintext and can write frames
	// of its own.
	overTLS13
	// overTLS12: the client speaks no TLS 1.3, hence a normal start.
	overTLS12
	// plainTCP: no TLS.
	plainTCP
	// pinnedRegion: as magicsock does for a self-signed relay in a DERP map: by region, with the
	// certificate's hash.
	pinnedRegion
)

// peer is a stock derphttp client that is connected and whose messages are being read.
type peer struct {
	*derphttp.Client
	private key.NodePrivate
	key     key.NodePublic
	inbox   chan derp.ReceivedMessage // closed when reading ended; readErr says why
	tap     *tapConn                  // over TCP for fastStart, overTLS12 and plainTCP; over TLS for overTLS13
	raw     net.Conn                  // overTLS13: the plaintext connection, for frames a client would not send

	readErr error
	done    context.Context
	stop    context.CancelFunc
}

// connect logs a fresh key in. The peer is closed when ctx ends.
func connect(ctx context.Context, t *target, mode loginMode) (*peer, error) {
	return connectKey(ctx, t, mode, key.NewNode())
}

func connectKey(ctx context.Context, t *target, mode loginMode, k key.NodePrivate) (*peer, error) {
	p, err := newPeer(ctx, t, mode, k)
	if err != nil {
		return nil, err
	}
	return p, p.login(ctx)
}

// newPeer prepares a client that has not dialled yet.
func newPeer(ctx context.Context, t *target, mode loginMode, k key.NodePrivate) (*peer, error) {
	p := &peer{private: k, key: k.Public(), inbox: make(chan derp.ReceivedMessage, 256)}
	serverURL := t.url
	if mode == plainTCP {
		serverURL = t.plainURL
	}
	u, err := url.Parse(serverURL)
	if err != nil {
		return nil, err
	}
	if mode == pinnedRegion {
		region, err := pinnedRegionOf(ctx, u)
		if err != nil {
			return nil, err
		}
		p.Client = derphttp.NewRegionClient(k, t.logf, netmon.NewStatic(),
			func() *tailcfg.DERPRegion { return region })
	} else {
		if mode == overTLS13 {
			// With a plain URL the client asks for the 101; the dialer below puts TLS underneath.
			u.Scheme = "http"
		}
		p.Client, err = derphttp.NewClient(k, u.String(), t.logf, netmon.NewStatic())
		if err != nil {
			return nil, err
		}
		p.SetURLDialer(p.dialer(mode))
	}
	if mode == fastStart || mode == overTLS12 {
		leaf, _, err := serverCertificates(ctx, u.Host)
		if err != nil {
			return nil, err
		}
		roots := x509.NewCertPool()
		roots.AddCert(leaf)
		p.TLSConfig = &tls.Config{RootCAs: roots}
		if mode == overTLS12 {
			p.TLSConfig.MaxVersion = tls.VersionTLS12
		}
	}
	p.done, p.stop = context.WithCancel(ctx)
	return p, nil
}

func (p *peer) dialer(mode loginMode) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		if p.tap != nil {
			return nil, errors.New("the client lost its connection and dials again")
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if mode == overTLS13 {
			// Trust is not what is judged here; the other modes check the certificate.
			secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
			if err := secure.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, err
			}
			conn, p.raw = secure, secure
		}
		p.tap = &tapConn{Conn: conn, keep: mode == overTLS13}
		return p.tap, nil
	}
}

// login connects, then starts reading. The client's lazy reconnect is a failure here: the dialer refuses it.
func (p *peer) login(ctx context.Context) error {
	if err := p.Connect(ctx); err != nil {
		p.leave()
		return err
	}
	go func() {
		<-p.done.Done()
		p.Close()
	}()
	go p.read()
	return nil
}

// leave closes the connection; the peer's key is free for another login.
func (p *peer) leave() {
	p.stop()
	p.Close()
}

func (p *peer) read() {
	defer close(p.inbox)
	for {
		m, generation, err := p.RecvDetail()
		if err == nil && generation != 1 {
			err = errors.New("the connection was lost and made again")
		}
		if err != nil {
			p.readErr = err
			p.stop()
			return
		}
		if pkt, ok := m.(derp.ReceivedPacket); ok {
			pkt.Data = bytes.Clone(pkt.Data)
			m = pkt
		}
		select {
		case p.inbox <- m:
		case <-p.done.Done():
			p.readErr = context.Cause(p.done)
			return
		}
	}
}

// next is the next message other than a KeepAlive, which may come at any time.
func (p *peer) next(ctx context.Context) (derp.ReceivedMessage, error) {
	for {
		select {
		case m, ok := <-p.inbox:
			if !ok {
				return nil, fmt.Errorf("connection ended: %w", p.readErr)
			}
			if _, ok := m.(derp.KeepAliveMessage); !ok {
				return m, nil
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("nothing came: %w", ctx.Err())
		}
	}
}

// expect fails unless the very next message is a T.
func expect[T derp.ReceivedMessage](ctx context.Context, p *peer) (T, error) {
	m, err := p.next(ctx)
	if err != nil {
		var none T
		return none, fmt.Errorf("waiting for %T: %w", none, err)
	}
	got, ok := m.(T)
	if !ok {
		return got, fmt.Errorf("got %T %+v, want %T", m, m, got)
	}
	return got, nil
}

// expectPacket fails unless the very next message is this packet.
func expectPacket(ctx context.Context, p *peer, from key.NodePublic, want []byte) error {
	pkt, err := expect[derp.ReceivedPacket](ctx, p)
	switch {
	case err != nil:
		return err
	case pkt.Source != from:
		return fmt.Errorf("packet's source is %v, want %v", pkt.Source, from)
	case !bytes.Equal(pkt.Data, want):
		return fmt.Errorf("packet differs: got %d bytes %.32x, want %d bytes %.32x",
			len(pkt.Data), pkt.Data, len(want), want)
	}
	return nil
}

// fence is a ping and its pong: what the server did for this connection before is done, and anything it sent
// before has been read. Fails if something else came first.
func (p *peer) fence(ctx context.Context, data string) error {
	ping := [8]byte([]byte(data + "........")[:8])
	if err := p.SendPing(ping); err != nil {
		return err
	}
	pong, err := expect[derp.PongMessage](ctx, p)
	if err == nil && pong != ping {
		err = fmt.Errorf("pong says %q, want %q", pong, ping)
	}
	return err
}

// loggedIn connects in the given mode and takes the ServerInfo message.
func loggedIn(ctx context.Context, t *target, mode loginMode) (*peer, error) {
	p, err := connect(ctx, t, mode)
	if err != nil {
		return nil, err
	}
	_, err = expect[derp.ServerInfoMessage](ctx, p)
	return p, err
}
