package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// member says how a client logs in to a relay of a mesh.
type member struct {
	key     key.NodePrivate // Zero: a fresh one.
	meshKey key.DERPMesh
	watch   bool
	prober  bool
	appName string
}

// login connects a client whose plaintext the judge sees.
func (r *meshRelay) login(ctx context.Context, how member) (*peer, error) {
	return loginMember(ctx, &r.target, how)
}

func loginMember(ctx context.Context, t *target, how member) (*peer, error) {
	if how.key.IsZero() {
		how.key = key.NewNode()
	}
	p, err := newPeer(ctx, t, overTLS13, how.key)
	if err != nil {
		return nil, err
	}
	p.MeshKey, p.WatchConnectionChanges = how.meshKey, how.watch
	p.IsProber, p.AppName = how.prober, how.appName
	if err := p.login(ctx); err != nil {
		return nil, err
	}
	_, err = expect[derp.ServerInfoMessage](ctx, p)
	return p, err
}

// client is a regular client; watcher and forwarder hold the mesh key.
func (r *meshRelay) client(ctx context.Context) (*peer, error) { return r.login(ctx, member{}) }

func (r *meshRelay) watcher(ctx context.Context) (*peer, error) {
	return r.login(ctx, member{meshKey: r.meshKey, watch: true})
}

func (r *meshRelay) forwarder(ctx context.Context) (*peer, error) {
	return r.login(ctx, member{meshKey: r.meshKey})
}

// clients logs several regular clients in.
func (r *meshRelay) clients(ctx context.Context, n int) ([]*peer, error) {
	all := make([]*peer, n)
	for i := range all {
		var err error
		if all[i], err = r.client(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// address is the client's own end of its connection.
func (p *peer) address() netip.AddrPort {
	at, err := netip.ParseAddrPort(p.raw.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return at
}

// presentFrame is the whole PeerPresent frame as upstream writes it.
func presentFrame(m derp.PeerPresentMessage) []byte {
	payload := m.Key.AppendTo(nil)
	ip := m.IPPort.Addr().As16()
	payload = append(payload, ip[:]...)
	payload = append(payload, byte(m.IPPort.Port()>>8), byte(m.IPPort.Port()))
	payload = append(payload, byte(m.Flags), byte(len(m.AppName)))
	return frame(derp.FramePeerPresent, append(payload, m.AppName...))
}

// present is what a watcher is told of a client.
func (p *peer) present(flags derp.PeerPresentFlags, appName string) derp.PeerPresentMessage {
	return derp.PeerPresentMessage{Key: p.key, IPPort: p.address(), Flags: flags, AppName: appName}
}

func (p *peer) regular() derp.PeerPresentMessage { return p.present(derp.PeerPresentIsRegular, "") }
func (p *peer) meshed() derp.PeerPresentMessage  { return p.present(derp.PeerPresentIsMeshPeer, "") }

// expectPresent fails unless the very next messages are these, in any order: a watcher's first are in none.
func expectPresent(ctx context.Context, w *peer, want ...derp.PeerPresentMessage) error {
	missing := map[derp.PeerPresentMessage]bool{}
	for _, m := range want {
		missing[m] = true
	}
	for len(missing) > 0 {
		got, err := expect[derp.PeerPresentMessage](ctx, w)
		if err != nil {
			return fmt.Errorf("%d of %d clients not told of: %w", len(missing), len(want), err)
		}
		if !missing[got] {
			return fmt.Errorf("told of %+v, want one of %+v", got, want)
		}
		if !bytes.Contains(w.tap.readSoFar(), presentFrame(got)) {
			return errors.New("the PeerPresent frame's bytes are not upstream's")
		}
		delete(missing, got)
	}
	return nil
}

// expectGoneAt fails unless each of the watchers is told next that this key left.
func expectGoneAt(ctx context.Context, gone key.NodePublic, watchers ...*peer) error {
	for i, w := range watchers {
		if err := expectGone(ctx, w, gone, derp.PeerGoneReasonDisconnected); err != nil {
			return fmt.Errorf("watcher %d: %w", i+1, err)
		}
	}
	return nil
}

// expectPresentAt fails unless each of the watchers is told next of this client.
func expectPresentAt(ctx context.Context, m derp.PeerPresentMessage, watchers ...*peer) error {
	for i, w := range watchers {
		if err := expectPresent(ctx, w, m); err != nil {
			return fmt.Errorf("watcher %d: %w", i+1, err)
		}
	}
	return nil
}
