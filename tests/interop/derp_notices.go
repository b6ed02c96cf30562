package main

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/disco"
	"tailscale.com/types/key"
)

var noticeCases = []testCase{
	{"derp-unknown-peer", needsURL, 15 * time.Second, unknownPeer},
	{"derp-unknown-peer-data", needsURL, 15 * time.Second, unknownPeerData},
	{"derp-disconnect-notice", needsURL, 15 * time.Second, disconnectNotice},
}

// discoPacket is a sealed disco ping, as a client sends to a peer it looks for.
func discoPacket() []byte {
	from, to := key.NewDisco(), key.NewDisco()
	b := append([]byte(disco.Magic), from.Public().AppendTo(nil)...)
	return append(b, from.Shared(to.Public()).Seal((&disco.Ping{TxID: [12]byte{1}}).AppendMarshal(nil))...)
}

// goneFrame is the whole PeerGone frame as upstream writes it.
func goneFrame(peer key.NodePublic, reason derp.PeerGoneReasonType) []byte {
	b := []byte{byte(derp.FramePeerGone), 0, 0, 0, 33}
	return append(peer.AppendTo(b), byte(reason))
}

func expectGone(ctx context.Context, p *peer, peer key.NodePublic, reason derp.PeerGoneReasonType) error {
	gone, err := expect[derp.PeerGoneMessage](ctx, p)
	if err != nil {
		return err
	}
	if want := (derp.PeerGoneMessage{Peer: peer, Reason: reason}); gone != want {
		return fmt.Errorf("got %+v, want %+v", gone, want)
	}
	if !bytes.Contains(p.tap.readSoFar(), goneFrame(peer, reason)) {
		return fmt.Errorf("the frame's bytes are not upstream's")
	}
	return nil
}

// unknownPeer: a disco packet to a key nobody knows is answered with reason "not here".
func unknownPeer(ctx context.Context, t *target) (string, error) {
	p, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer p.leave()
	nobody := key.NewNode().Public()
	if err := p.Send(nobody, discoPacket()); err != nil {
		return "", err
	}
	return "PeerGone, not here", expectGone(ctx, p, nobody, derp.PeerGoneReasonNotHere)
}

// unknownPeerData: other packets to an unknown key vanish without a notice; the pong that follows comes
// alone.
func unknownPeerData(ctx context.Context, t *target) (string, error) {
	p, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer p.leave()
	if err := p.Send(key.NewNode().Public(), []byte("not disco")); err != nil {
		return "", err
	}
	// One byte less than the least a disco packet can have.
	if err := p.Send(key.NewNode().Public(), discoPacket()[:6+32+23]); err != nil {
		return "", err
	}
	return "no notice", p.fence(ctx, "silence")
}

// disconnectNotice: who got a packet from a peer is told when it leaves; who did not is not told.
func disconnectNotice(ctx context.Context, t *target) (string, error) {
	a, err := loggedIn(ctx, t, fastStart)
	if err != nil {
		return "", err
	}
	defer a.leave()
	b, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer b.leave()
	bystander, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer bystander.leave()
	if err := a.Send(b.key, []byte("hello")); err != nil {
		return "", err
	}
	if err := expectPacket(ctx, b, a.key, []byte("hello")); err != nil {
		return "", err
	}
	a.leave()
	if err := expectGone(ctx, b, a.key, derp.PeerGoneReasonDisconnected); err != nil {
		return "", err
	}
	if err := b.fence(ctx, "once"); err != nil {
		return "", err
	}
	return "PeerGone, disconnected", bystander.fence(ctx, "bystand")
}
