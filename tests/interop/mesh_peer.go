package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/derp/derpserver"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// meshPeer is a stock server in the judge that the relay under test is to mesh with: it takes the relay's
// link, and has one of its own to the relay.
type meshPeer struct {
	target  // Its url alone.
	r       *meshRelay
	entry   string // As in -mesh-with.
	host    string // The name in its certificate.
	addr    string
	private key.NodePrivate
	meshKey key.DERPMesh
	cert    tls.Certificate

	// While it runs:
	server *derpserver.Server
	web    *http.Server
	stop   context.CancelFunc

	mu       sync.Mutex
	requests []linkRequest
}

// linkRequest is what of a client's login is seen before its frames.
type linkRequest struct {
	serverName        string // SNI
	method, uri, host string
	upgrade           string
}

// newMeshPeer prepares a peer that the relay dials by address, or, with a name, by HOST/DIALHOST.
func newMeshPeer(r *meshRelay, name string) (*meshPeer, error) {
	p := &meshPeer{r: r, private: key.NewNode(), meshKey: r.meshKey}
	p.logf = r.logf
	listener, err := net.Listen("tcp", relayHost+":0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	p.addr = listener.Addr().String()
	p.url = "https://" + p.addr + "/derp"
	p.host, p.entry = relayHost, p.addr
	if name != "" {
		p.host = name
		_, port, err := net.SplitHostPort(p.addr)
		if err != nil {
			return nil, err
		}
		p.entry = net.JoinHostPort(name, port) + "/" + relayHost
	}
	p.cert, err = r.ca.issue(p.host)
	return p, err
}

// serve starts the peer's server, on the same address each time.
func (p *meshPeer) serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		return err
	}
	p.server = derpserver.New(p.private, p.logf)
	if err := p.server.SetMeshKey(p.meshKey.String()); err != nil {
		return err
	}
	config := &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &p.cert, nil },
	}
	p.server.ModifyTLSConfigToAddMetaCert(config)
	p.web = &http.Server{
		Handler:      p.noting(derpserver.Handler(p.server)),
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
		ErrorLog:     log.New(io.Discard, "", 0),
	}
	go p.web.Serve(tls.NewListener(listener, config))
	ctx, p.stop = context.WithCancel(ctx)
	web, server := p.web, p.server
	context.AfterFunc(ctx, func() {
		web.Close()
		server.Close()
	})
	return nil
}

// noting keeps what each request said.
func (p *meshPeer) noting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, linkRequest{
			req.TLS.ServerName, req.Method, req.RequestURI, req.Host, req.Header.Get("Upgrade"),
		})
		p.mu.Unlock()
		next.ServeHTTP(w, req)
	})
}

func (p *meshPeer) requestsSoFar() []linkRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]linkRequest(nil), p.requests...)
}

// join starts the peer's own link to the relay, as derper has one for each of its -mesh-with.
func (p *meshPeer) join(ctx context.Context) error {
	link, err := derphttp.NewClient(p.private, p.r.url, p.logf, netmon.NewStatic())
	if err != nil {
		return err
	}
	link.MeshKey, link.WatchConnectionChanges = p.meshKey, true
	link.TLSConfig = &tls.Config{RootCAs: p.r.ca.pool}
	server := p.server
	ctx, stop := context.WithCancel(ctx)
	serving := p.stop
	p.stop = func() {
		stop()
		serving()
	}
	context.AfterFunc(ctx, func() { link.Close() })
	go link.RunWatchConnectionLoop(ctx, p.private.Public(), nil,
		func(m derp.PeerPresentMessage) { server.AddPacketForwarder(m.Key, link) },
		func(m derp.PeerGoneMessage) { server.RemovePacketForwarder(m.Peer, link) }, nil)
	return nil
}

// awaitKey returns once the key is connected here, or, if not wanted, is not.
func (p *meshPeer) awaitKey(ctx context.Context, k key.NodePublic, wanted bool) error {
	for p.server.IsClientConnectedForTest(k) != wanted {
		select {
		case <-time.After(retryEvery / 4):
		case <-ctx.Done():
			return fmt.Errorf("key is connected at the peer: %v, want %v", !wanted, wanted)
		}
	}
	return nil
}

// awaitLink returns once the relay is connected here.
func (p *meshPeer) awaitLink(ctx context.Context) error {
	if err := p.awaitKey(ctx, p.r.private.Public(), true); err != nil {
		return fmt.Errorf("the relay has no link to %s: %w", p.entry, err)
	}
	return nil
}

func (p *meshPeer) login(ctx context.Context, how member) (*peer, error) {
	return loginMember(ctx, &p.target, how)
}

func (p *meshPeer) client(ctx context.Context) (*peer, error) { return p.login(ctx, member{}) }

// reachPeer sends until a packet arrives: until then the way may be unknown to a server on it. Nothing is
// under way when it returns.
func reachPeer(ctx context.Context, from, to *peer) error {
	sent := map[string]int{}
	for seq := 1; ctx.Err() == nil; seq++ {
		probe := fmt.Sprintf("probe %d of %p", seq, to)
		sent[probe] = seq
		if err := from.Send(to.key, []byte(probe)); err != nil {
			return err
		}
		soon, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		for {
			m, err := to.next(soon)
			if soon.Err() != nil {
				break
			}
			if err != nil {
				cancel()
				return err
			}
			packet, ok := m.(derp.ReceivedPacket)
			if !ok || packet.Source != from.key || sent[string(packet.Data)] == 0 {
				cancel()
				return fmt.Errorf("got %T %+v, want a probe", m, m)
			}
			// One that was late is followed by the others.
			if sent[string(packet.Data)] == seq {
				cancel()
				return nil
			}
		}
		cancel()
	}
	return errors.New("no packet arrives")
}

// pass sends one packet, which must be the very next thing that arrives.
func pass(ctx context.Context, from, to *peer, what string) error {
	if err := from.Send(to.key, []byte(what)); err != nil {
		return err
	}
	if err := expectPacket(ctx, to, from.key, []byte(what)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// linkCase gives a case n peers, to which the relay has its links and which have theirs to it. The second and
// later ones are dialled by HOST/DIALHOST.
func linkCase(
	n int, run func(context.Context, *meshRelay, []*meshPeer) (string, error),
) func(context.Context, *target) (string, error) {
	return relayCase(func(ctx context.Context, r *meshRelay) (string, error) {
		peers := make([]*meshPeer, n)
		with := ""
		for i := range peers {
			name := ""
			if i > 0 {
				name = fmt.Sprintf("peer%d.mesh.test", i+1)
				with += ","
			}
			var err error
			if peers[i], err = newMeshPeer(r, name); err != nil {
				return "", err
			}
			if err := peers[i].serve(ctx); err != nil {
				return "", err
			}
			with += peers[i].entry
		}
		if err := r.start(ctx, r.keyed(), "-mesh-with="+with); err != nil {
			return "", err
		}
		for _, p := range peers {
			if err := p.join(ctx); err != nil {
				return "", err
			}
			if err := p.awaitLink(ctx); err != nil {
				return "", err
			}
		}
		return run(ctx, r, peers)
	})
}
