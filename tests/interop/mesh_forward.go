package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// What a mesh peer's ForwardPacket and ClosePeer do at the relay that they reach.
var meshForwardCases = []testCase{
	{"mesh-forward", needsServer, 15 * time.Second, meshCase(meshForward)},
	{"mesh-forward-unknown", needsServer, 15 * time.Second, meshCase(meshForwardUnknown)},
	{"mesh-forward-source-gone", needsServer, 15 * time.Second, meshCase(meshForwardSourceGone)},
	{"mesh-close-peer", needsServer, 15 * time.Second, meshCase(meshClosePeer)},
	{"mesh-close-peer-duplicates", needsServer, 15 * time.Second, meshCase(meshClosePeerDuplicates)},
}

// pause is what a case that wants nothing to happen waits for it, where no answer would follow it.
const pause = 200 * time.Millisecond

func (p *peer) forward(from, to key.NodePublic, packet []byte) error {
	return p.ForwardPacket(from, to, derp.LoanBytes(packet))
}

// meshForward: a forwarded packet arrives as from its source, which need not be known here.
func meshForward(ctx context.Context, r *meshRelay) (string, error) {
	link, err := r.forwarder(ctx)
	if err != nil {
		return "", err
	}
	to, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	elsewhere := key.NewNode().Public()
	packets := [][]byte{
		{}, []byte("x"), discoPacket(), bytes.Repeat([]byte("largest "), derp.MaxPacketSize/8),
	}
	for _, packet := range packets {
		if err := link.forward(elsewhere, to.key, packet); err != nil {
			return "", err
		}
		if err := expectPacket(ctx, to, elsewhere, packet); err != nil {
			return "", err
		}
	}
	// The order is kept. Less than a queue of upstream's holds are under way.
	const n, window = 1000, 16
	sent := uint64(0)
	for seq := range uint64(n) {
		for ; sent < n && sent < seq+window; sent++ {
			if err := link.forward(elsewhere, to.key, dataPacket(6, sent)); err != nil {
				return "", err
			}
		}
		if err := expectPacket(ctx, to, elsewhere, dataPacket(6, seq)); err != nil {
			return "", fmt.Errorf("packet %d: %w", seq, err)
		}
	}
	// The source's key here is another connection's business: it is not told.
	if err := link.fence(ctx, "silence"); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d packets", n+len(packets)), to.fence(ctx, "no more")
}

// meshForwardUnknown: the peer that forwarded to an unknown key is told, if the packet was disco, and not
// more often than three times at once.
func meshForwardUnknown(ctx context.Context, r *meshRelay) (string, error) {
	link, err := r.forwarder(ctx)
	if err != nil {
		return "", err
	}
	source, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	nobody := key.NewNode().Public()
	if err := link.forward(source.key, nobody, []byte("not disco")); err != nil {
		return "", err
	}
	if err := link.fence(ctx, "silence"); err != nil {
		return "", err
	}
	const packets, burst = 10, 3
	for range packets {
		if err := link.forward(source.key, nobody, discoPacket()); err != nil {
			return "", err
		}
	}
	if err := link.SendPing([8]byte([]byte("no more."))); err != nil {
		return "", err
	}
	told := 0
	for {
		m, err := link.next(ctx)
		if err != nil {
			return "", err
		}
		if _, ok := m.(derp.PongMessage); ok {
			break
		}
		if want := (derp.PeerGoneMessage{Peer: nobody, Reason: derp.PeerGoneReasonNotHere}); m != want {
			return "", fmt.Errorf("got %T %+v, want %+v", m, m, want)
		}
		told++
	}
	// One more if the ten took a second.
	if told < burst || told > burst+1 {
		return "", fmt.Errorf("told %d times of %d packets, want %d", told, packets, burst)
	}
	return fmt.Sprintf("told %d times of %d", told, packets), source.fence(ctx, "not told")
}

// meshForwardSourceGone: the end of the peer that forwarded says nothing of the source, which was never
// claimed. When the source was here and leaves, all who heard from it are told, by whatever way they heard.
func meshForwardSourceGone(ctx context.Context, r *meshRelay) (string, error) {
	link, err := r.forwarder(ctx)
	if err != nil {
		return "", err
	}
	to, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	source := key.NewNode()
	if err := link.forward(source.Public(), to.key, []byte("from elsewhere")); err != nil {
		return "", err
	}
	if err := expectPacket(ctx, to, source.Public(), []byte("from elsewhere")); err != nil {
		return "", err
	}
	link.leave()
	time.Sleep(pause)
	if err := to.fence(ctx, "not told"); err != nil {
		return "", fmt.Errorf("after the link's end: %w", err)
	}
	here, err := r.login(ctx, member{key: source})
	if err != nil {
		return "", err
	}
	if err := to.fence(ctx, "not told"); err != nil {
		return "", err
	}
	here.leave()
	if err := expectGone(ctx, to, source.Public(), derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	return "not with the link, but with the source", to.fence(ctx, "once")
}

// meshClosePeer: the peer's connection ends and no other; a key that nobody has is none's; one's own is one's
// end.
func meshClosePeer(ctx context.Context, r *meshRelay) (string, error) {
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, w.meshed()); err != nil {
		return "", err
	}
	two, err := r.clients(ctx, 2)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, two[0].regular(), two[1].regular()); err != nil {
		return "", err
	}
	if err := two[0].Send(two[1].key, []byte("hello")); err != nil {
		return "", err
	}
	if err := expectPacket(ctx, two[1], two[0].key, []byte("hello")); err != nil {
		return "", err
	}
	if err := w.ClosePeer(key.NewNode().Public()); err != nil {
		return "", err
	}
	if err := w.fence(ctx, "nobody"); err != nil {
		return "", err
	}
	if err := w.ClosePeer(two[0].key); err != nil {
		return "", err
	}
	if err := expectClosed(ctx, two[0]); err != nil {
		return "", err
	}
	if err := expectGoneAt(ctx, two[0].key, w, two[1]); err != nil {
		return "", err
	}
	if err := two[1].fence(ctx, "stays"); err != nil {
		return "", err
	}
	if err := w.ClosePeer(w.key); err != nil {
		return "", err
	}
	return "closed", expectClosed(ctx, w)
}

// meshClosePeerDuplicates: all connections of the key end.
func meshClosePeerDuplicates(ctx context.Context, r *meshRelay) (string, error) {
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, w.meshed()); err != nil {
		return "", err
	}
	same := key.NewNode()
	var connections [3]*peer
	for i := range connections {
		if connections[i], err = r.login(ctx, member{key: same}); err != nil {
			return "", err
		}
		if err := expectPresent(ctx, w, connections[i].regular()); err != nil {
			return "", err
		}
	}
	if err := w.ClosePeer(same.Public()); err != nil {
		return "", err
	}
	for _, c := range connections {
		if err := expectClosed(ctx, c); err != nil {
			return "", err
		}
	}
	if err := expectGoneAt(ctx, same.Public(), w); err != nil {
		return "", err
	}
	return "three connections closed, gone once", w.fence(ctx, "once")
}
