package main

import (
	"context"
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// Which way a packet goes when keys come and go at several servers of a mesh, and who is told of it.
var meshTableCases = []testCase{
	{"mesh-table-gone", needsServer, 15 * time.Second, linkCase(1, tableGone)},
	{"mesh-table-local-wins", needsServer, 15 * time.Second, linkCase(1, tableLocalWins)},
	{"mesh-table-local-stays", needsServer, 15 * time.Second, linkCase(1, tableLocalStays)},
	{"mesh-table-moves", needsServer, 15 * time.Second, linkCase(2, tableMoves)},
	{"mesh-table-second-leaves", needsServer, 15 * time.Second, linkCase(2, tableSecondLeaves)},
	{"mesh-table-peer-restarts", needsServer, 20 * time.Second, linkCase(1, tablePeerRestarts)},
}

// notHere: the relay knows the key nowhere.
func notHere(ctx context.Context, a *peer, k key.NodePublic) error {
	if err := a.Send(k, discoPacket()); err != nil {
		return err
	}
	return expectGone(ctx, a, k, derp.PeerGoneReasonNotHere)
}

// settle returns once the relay knows all that happened at p so far: it knows of a client that came later.
func settle(ctx context.Context, r *meshRelay, p *meshPeer) error {
	from, err := r.client(ctx)
	if err != nil {
		return err
	}
	defer from.leave()
	mark, err := p.client(ctx)
	if err != nil {
		return err
	}
	defer mark.leave()
	return reachPeer(ctx, from, mark)
}

// depart ends a client of p and waits until the relay knows.
func depart(ctx context.Context, r *meshRelay, p *meshPeer, c *peer) error {
	c.leave()
	if err := p.awaitKey(ctx, c.key, false); err != nil {
		return err
	}
	return settle(ctx, r, p)
}

// heard lets a hear from x, over whatever way, so that it is owed a notice of x's end.
func heard(ctx context.Context, a, x *peer) error {
	if err := reachPeer(ctx, x, a); err != nil {
		return fmt.Errorf("heard from: %w", err)
	}
	return nil
}

// tableGone: when a key leaves the peer, those who heard from it are told, and it is known nowhere.
func tableGone(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	two, err := r.clients(ctx, 2)
	if err != nil {
		return "", err
	}
	a, bystander := two[0], two[1]
	x, err := peers[0].client(ctx)
	if err != nil {
		return "", err
	}
	if err := heard(ctx, a, x); err != nil {
		return "", err
	}
	// Who only sent to it is told nothing.
	if err := reachPeer(ctx, bystander, x); err != nil {
		return "", err
	}
	x.leave()
	if err := expectGone(ctx, a, x.key, derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	if err := a.fence(ctx, "once"); err != nil {
		return "", err
	}
	if err := bystander.fence(ctx, "not told"); err != nil {
		return "", err
	}
	return "told; then not here", notHere(ctx, a, x.key)
}

// tableLocalWins: a key that is here and there gets its packets here. It is gone when it is at neither.
func tableLocalWins(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	p := peers[0]
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	same := key.NewNode()
	there, err := p.login(ctx, member{key: same})
	if err != nil {
		return "", err
	}
	if err := heard(ctx, a, there); err != nil {
		return "", err
	}
	if err := reachPeer(ctx, a, there); err != nil {
		return "", err
	}
	here, err := r.login(ctx, member{key: same})
	if err != nil {
		return "", err
	}
	if err := pass(ctx, a, here, "local wins"); err != nil {
		return "", err
	}
	// Had it gone over the link too, it would be there before what goes over the link afterwards.
	if err := settle(ctx, r, p); err != nil {
		return "", err
	}
	if err := there.fence(ctx, "nothing"); err != nil {
		return "", fmt.Errorf("at the peer: %w", err)
	}
	here.leave()
	if err := reachPeer(ctx, a, there); err != nil {
		return "", fmt.Errorf("after the local one left: %w", err)
	}
	if err := a.fence(ctx, "not told"); err != nil {
		return "", err
	}
	there.leave()
	if err := expectGone(ctx, a, same.Public(), derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	return "here, then there, then gone", notHere(ctx, a, same.Public())
}

// tableLocalStays: of a key that is here and there, the one there leaves first.
func tableLocalStays(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	p := peers[0]
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	same := key.NewNode()
	here, err := r.login(ctx, member{key: same})
	if err != nil {
		return "", err
	}
	if err := pass(ctx, here, a, "heard from"); err != nil {
		return "", err
	}
	there, err := p.login(ctx, member{key: same})
	if err != nil {
		return "", err
	}
	if err := settle(ctx, r, p); err != nil {
		return "", err
	}
	if err := pass(ctx, a, here, "local wins"); err != nil {
		return "", err
	}
	if err := depart(ctx, r, p, there); err != nil {
		return "", err
	}
	if err := a.fence(ctx, "not told"); err != nil {
		return "", err
	}
	if err := pass(ctx, a, here, "still here"); err != nil {
		return "", err
	}
	here.leave()
	if err := expectGone(ctx, a, same.Public(), derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	return "there left, here left, then gone", notHere(ctx, a, same.Public())
}

// newestClaim says which of several peers with one key gets its packets: the last to have it, not the first.
var newestClaim bool

// listing is how long a relay with the rule of the newest claim takes news for the list of those who were there
// when its link came up, and some more.
const listing = 1500 * time.Millisecond

// winner is the one of two claims, in their order, that counts.
func winner(older, newer *peer) *peer {
	if newestClaim {
		return newer
	}
	return older
}

// atTwo logs one key in at both peers, first at the first, with the relay knowing it in this order.
func atTwo(ctx context.Context, r *meshRelay, peers []*meshPeer) (a, first, second *peer, err error) {
	if newestClaim {
		time.Sleep(listing)
	}
	if a, err = r.client(ctx); err != nil {
		return
	}
	same := key.NewNode()
	if first, err = peers[0].login(ctx, member{key: same}); err != nil {
		return
	}
	if err = heard(ctx, a, first); err != nil {
		return
	}
	if err = reachPeer(ctx, a, first); err != nil {
		return
	}
	if second, err = peers[1].login(ctx, member{key: same}); err != nil {
		return
	}
	if err = settle(ctx, r, peers[1]); err != nil {
		return
	}
	gets := winner(first, second)
	if err = pass(ctx, a, gets, "one of the two gets it"); err != nil {
		return
	}
	if err = settle(ctx, r, peers[1]); err != nil {
		return
	}
	other := first
	if gets == first {
		other = second
	}
	return a, first, second, other.fence(ctx, "nothing")
}

// tableMoves: a key comes up at a second peer and then leaves the first. Nobody is told that it left.
func tableMoves(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	a, first, second, err := atTwo(ctx, r, peers)
	if err != nil {
		return "", err
	}
	if err := depart(ctx, r, peers[0], first); err != nil {
		return "", err
	}
	if err := pass(ctx, a, second, "the second has it"); err != nil {
		return "", err
	}
	if err := a.fence(ctx, "not told"); err != nil {
		return "", err
	}
	// Back again: now the second has the older claim.
	if first, err = peers[0].login(ctx, member{key: first.private}); err != nil {
		return "", err
	}
	if err := settle(ctx, r, peers[0]); err != nil {
		return "", err
	}
	if err := pass(ctx, a, winner(second, first), "one of the two gets it"); err != nil {
		return "", err
	}
	if err := depart(ctx, r, peers[1], second); err != nil {
		return "", err
	}
	if err := pass(ctx, a, first, "the first has it again"); err != nil {
		return "", err
	}
	if err := a.fence(ctx, "not told"); err != nil {
		return "", err
	}
	first.leave()
	if err := expectGone(ctx, a, first.key, derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	return "there, elsewhere and back", notHere(ctx, a, first.key)
}

// tableSecondLeaves: of a key at two peers, the one that came later leaves first.
func tableSecondLeaves(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	a, first, second, err := atTwo(ctx, r, peers)
	if err != nil {
		return "", err
	}
	if err := depart(ctx, r, peers[1], second); err != nil {
		return "", err
	}
	if err := pass(ctx, a, first, "the first keeps it"); err != nil {
		return "", err
	}
	if err := a.fence(ctx, "not told"); err != nil {
		return "", err
	}
	first.leave()
	if err := expectGone(ctx, a, first.key, derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	return "then gone", notHere(ctx, a, first.key)
}

// tablePeerRestarts: with the link all that it claimed is gone, and those who heard from it are told at once.
// When the peer is back, who is there then is known, and nobody else.
func tablePeerRestarts(ctx context.Context, r *meshRelay, peers []*meshPeer) (string, error) {
	p := peers[0]
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	returns, stays := key.NewNode(), key.NewNode()
	x, err := p.login(ctx, member{key: returns})
	if err != nil {
		return "", err
	}
	y, err := p.login(ctx, member{key: stays})
	if err != nil {
		return "", err
	}
	if err := heard(ctx, a, x); err != nil {
		return "", err
	}
	if err := reachPeer(ctx, a, y); err != nil {
		return "", err
	}
	p.stop()
	broke := time.Now()
	if err := expectGone(ctx, a, x.key, derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	told := time.Since(broke)
	if err := notHere(ctx, a, y.key); err != nil {
		return "", err
	}
	if err := p.serve(ctx); err != nil {
		return "", err
	}
	if err := p.join(ctx); err != nil {
		return "", err
	}
	if x, err = p.login(ctx, member{key: returns}); err != nil {
		return "", err
	}
	if err := reachPeer(ctx, a, x); err != nil {
		return "", fmt.Errorf("after the restart: %w", err)
	}
	whole := time.Since(broke)
	if err := heard(ctx, a, x); err != nil {
		return "", err
	}
	return fmt.Sprintf("told after %v, whole after %v", told.Round(time.Millisecond),
		whole.Round(100*time.Millisecond)), notHere(ctx, a, y.key)
}
