package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// The links that the relay makes to its mesh peers, and what crosses them. A stock server in the judge is the
// peer.
var meshLinkCases = []testCase{
	{"mesh-link-login", needsServer, 15 * time.Second, linkCase(2, linkLogin)},
	{"mesh-link-cross", needsServer, 30 * time.Second, linkCase(2, linkCross)},
	{"mesh-link-one-hop", needsServer, 15 * time.Second, linkCase(2, linkOneHop)},
	{"mesh-link-late", needsServer, 20 * time.Second, relayCase(linkLate)},
	{"mesh-link-refused", needsServer, 20 * time.Second, relayCase(linkRefused)},
	{"mesh-link-self", needsServer, 20 * time.Second, relayCase(linkSelf)},
}

// linkLogin: the relay logs in with its own key and the mesh key, asks for the page its entry names, and is
// told of the peer's clients without asking twice.
func linkLogin(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	for _, p := range peers {
		_, port, err := net.SplitHostPort(p.addr)
		if err != nil {
			return "", err
		}
		want := linkRequest{method: "GET", uri: "/derp", host: net.JoinHostPort(p.host, port), upgrade: "derp"}
		if net.ParseIP(p.host) == nil {
			want.serverName = p.host
		}
		requests := p.requestsSoFar()
		if len(requests) != 1 {
			return "", fmt.Errorf("%s: %d requests, want one", p.entry, len(requests))
		}
		got := requests[0]
		got.upgrade = string(bytes.ToLower([]byte(got.upgrade)))
		if got != want {
			return "", fmt.Errorf("%s: request %+v, want %+v", p.entry, got, want)
		}
		// The peer's own watchers see the relay as upstream's derper: a mesh peer without an app name.
		w, err := p.login(ctx, member{meshKey: p.meshKey, watch: true})
		if err != nil {
			return "", err
		}
		for {
			m, err := expect[derp.PeerPresentMessage](ctx, w)
			if err != nil {
				return "", err
			}
			if m.Key != r.private.Public() {
				continue
			}
			if m.Flags != derp.PeerPresentIsMeshPeer || m.AppName != "" {
				return "", fmt.Errorf("the relay is %+v at its peer", m)
			}
			break
		}
		a, err := r.client(ctx)
		if err != nil {
			return "", err
		}
		x, err := p.client(ctx)
		if err != nil {
			return "", err
		}
		// The relay was told of x, so it watches.
		if err := reachPeer(ctx, a, x); err != nil {
			return "", fmt.Errorf("to %s: %w", p.entry, err)
		}
	}
	return "by address, and by name at another address", nil
}

// linkCross: packets of clients of either server reach clients of the other.
func linkCross(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	const n, window = 500, 16
	for _, p := range peers {
		x, err := p.client(ctx)
		if err != nil {
			return "", err
		}
		for _, way := range [][2]*peer{{a, x}, {x, a}} {
			if err := reachPeer(ctx, way[0], way[1]); err != nil {
				return "", err
			}
		}
		results := make(chan error, 2)
		for direction, way := range [][2]*peer{{a, x}, {x, a}} {
			go func() {
				from, to := way[0], way[1]
				sent := uint64(0)
				for seq := range uint64(n) {
					for ; sent < n && sent < seq+window; sent++ {
						if err := from.Send(to.key, dataPacket(byte(direction), sent)); err != nil {
							results <- err
							return
						}
					}
					want := dataPacket(byte(direction), seq)
					if err := expectPacket(ctx, to, from.key, want); err != nil {
						results <- fmt.Errorf("direction %d, packet %d: %w", direction, seq, err)
						return
					}
				}
				results <- nil
			}()
		}
		for range 2 {
			if err := <-results; err != nil {
				return "", err
			}
		}
		for _, packet := range [][]byte{{}, discoPacket(), bytes.Repeat([]byte{7}, derp.MaxPacketSize)} {
			for _, way := range [][2]*peer{{a, x}, {x, a}} {
				if err := pass(ctx, way[0], way[1], string(packet)); err != nil {
					return "", fmt.Errorf("%d bytes: %w", len(packet), err)
				}
			}
		}
	}
	return fmt.Sprintf("%d packets each way with each of %d peers", n, len(peers)), nil
}

// linkOneHop: what a mesh peer forwards goes to the relay's own clients and never over another link, even if
// the relay knows where the destination is.
func linkOneHop(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	x, err := peers[0].client(ctx)
	if err != nil {
		return "", err
	}
	if err := reachPeer(ctx, a, x); err != nil {
		return "", err
	}
	other, err := r.forwarder(ctx)
	if err != nil {
		return "", err
	}
	if err := other.forward(key.NewNode().Public(), x.key, []byte("a second hop")); err != nil {
		return "", err
	}
	if err := other.fence(ctx, "silence"); err != nil {
		return "", err
	}
	if err := other.forward(key.NewNode().Public(), x.key, discoPacket()); err != nil {
		return "", err
	}
	if err := expectGone(ctx, other, x.key, derp.PeerGoneReasonNotHere); err != nil {
		return "", err
	}
	return "not forwarded again; told not here", pass(ctx, a, x, "the link's next packet")
}

// linkLate: a peer that does not answer is dialled again.
func linkLate(ctx context.Context, r *meshRelay) (string, error) {
	p, err := newMeshPeer(r, "")
	if err != nil {
		return "", err
	}
	if err := r.start(ctx, r.keyed(), "-mesh-with="+p.entry); err != nil {
		return "", err
	}
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	time.Sleep(pause)
	if err := p.serve(ctx); err != nil {
		return "", err
	}
	x, err := p.client(ctx)
	if err != nil {
		return "", err
	}
	if err := p.awaitLink(ctx); err != nil {
		return "", err
	}
	return "dialled again", reachPeer(ctx, a, x)
}

// linkRefused: a peer with another mesh key ends the link at its WatchConns. The relay tries again, not at
// once, and does its other work meanwhile.
func linkRefused(ctx context.Context, r *meshRelay) (string, error) {
	p, err := newMeshPeer(r, "")
	if err != nil {
		return "", err
	}
	if p.meshKey, err = key.ParseDERPMesh(key.NewNode().Public().UntypedHexString()); err != nil {
		return "", err
	}
	if err := p.serve(ctx); err != nil {
		return "", err
	}
	if err := r.start(ctx, r.keyed(), "-mesh-with="+p.entry); err != nil {
		return "", err
	}
	const window, most = 6 * time.Second, 5
	for end := time.Now().Add(window); time.Now().Before(end); time.Sleep(pause) {
		if err := clientsServed(ctx, r); err != nil {
			return "", err
		}
	}
	n := len(p.requestsSoFar())
	if n < 2 || n > most {
		return "", fmt.Errorf("%d logins in %v, want 2 to %d", n, window, most)
	}
	return fmt.Sprintf("%d logins in %v", n, window), nil
}

// clientsServed passes a packet between two clients of the relay.
func clientsServed(ctx context.Context, r *meshRelay) error {
	two, err := r.clients(ctx, 2)
	if err != nil {
		return err
	}
	defer two[0].leave()
	defer two[1].leave()
	return pass(ctx, two[0], two[1], "the relay serves")
}

// linkSelf: a relay that is in its own -mesh-with sees that it is, and dials itself no more. What its clients
// are told is not touched by it.
func linkSelf(ctx context.Context, r *meshRelay) (string, error) {
	// A way on which its dialling is seen, because it may see its own key before it logs in.
	self, err := newCutProxy(ctx, func() string { return r.addr })
	if err != nil {
		return "", err
	}
	if err := r.start(ctx, r.keyed(), "-mesh-with="+self.addr); err != nil {
		return "", err
	}
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	two, err := r.clients(ctx, 2)
	if err != nil {
		return "", err
	}
	if err := pass(ctx, two[0], two[1], "heard from"); err != nil {
		return "", err
	}
	// Upstream dials before it listens, so its first attempt may fail; it tries again after 5 seconds.
	for self.passed() == 0 {
		time.Sleep(retryEvery)
		if ctx.Err() != nil {
			return "", errors.New("the relay never dialled itself: nothing was tested")
		}
	}
	const retry = 6 * time.Second
	time.Sleep(retry)
	if n := self.passed(); n != 1 {
		return "", fmt.Errorf("the relay dialled itself %d times", n)
	}
	two[0].leave()
	if err := expectGone(ctx, two[1], two[0].key, derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	if err := notHere(ctx, two[1], two[0].key); err != nil {
		return "", err
	}
	logins, ends, err := told(ctx, w, r.private.Public())
	return fmt.Sprintf("dialled itself once; watchers were told of %d logins, %d ends", logins, ends), err
}

// told is how often a watcher was told so far that a key came and that it left.
func told(ctx context.Context, w *peer, k key.NodePublic) (came, left int, err error) {
	if err := w.SendPing([8]byte([]byte("so far.."))); err != nil {
		return 0, 0, err
	}
	for {
		m, err := w.next(ctx)
		if err != nil {
			return 0, 0, err
		}
		switch m := m.(type) {
		case derp.PeerPresentMessage:
			if m.Key == k {
				came++
			}
		case derp.PeerGoneMessage:
			if m.Peer == k {
				left++
			}
		case derp.PongMessage:
			return came, left, nil
		}
	}
}
