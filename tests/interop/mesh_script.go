package main

import (
	"context"
	"fmt"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// A mesh peer written by hand: it sees the relay's frames and sends what a stock server sends seldom.
var meshScriptCases = []testCase{
	{"mesh-link-frames", needsServer, 15 * time.Second, relayCase(linkFrames)},
	{"mesh-link-claims", needsServer, 15 * time.Second, relayCase(linkClaims)},
}

// linkFrames: the relay's login and its ForwardPacket, byte by byte; PeerPresent as servers of all ages send
// it; and frames that do not concern a relay, which it passes over.
func linkFrames(ctx context.Context, r *meshRelay) (string, error) {
	l, err := acceptLink(ctx, r)
	if err != nil {
		return "", err
	}
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	for kind, payload := range map[derp.FrameType][]byte{
		derp.FrameKeepAlive:  nil,
		derp.FrameRecvPacket: append(a.key.AppendTo(nil), "to the relay itself"...),
		derp.FrameHealth:     []byte("unwell"),
		derp.FrameRestarting: make([]byte, 8),
		0x7f:                 make([]byte, 1000),
	} {
		if err := l.send(kind, payload); err != nil {
			return "", err
		}
	}
	whole := make([]byte, 16+2+1+1)
	tails := [][]byte{
		nil,                      // The first servers sent the key alone.
		whole[:18],               // Address and port.
		whole[:19],               // Flags: up to release 1.102.
		whole,                    // No app name.
		append(whole, "more"...), // What comes after it in some later release.
		append(append(append([]byte(nil), whole[:19]...), 3), "app"...),
		append(append(append([]byte(nil), whole[:19]...), 200), "cut off"...),
		append(append(append([]byte(nil), whole[:19]...), 2), 0, 0xff),
	}
	var keys []key.NodePublic
	var payloads [][]byte
	for _, tail := range tails {
		k := key.NewNode().Public()
		keys = append(keys, k)
		payloads = append(payloads, append(k.AppendTo(nil), tail...))
	}
	if err := l.claim(ctx, a, payloads...); err != nil {
		return "", err
	}
	for i, k := range keys {
		for _, packet := range [][]byte{{}, []byte("data"), discoPacket(), make([]byte, derp.MaxPacketSize)} {
			if err := a.Send(k, packet); err != nil {
				return "", err
			}
			if err := l.forwarded(ctx, a.key, k, packet); err != nil {
				return "", fmt.Errorf("PeerPresent of %d bytes: %w", len(payloads[i]), err)
			}
		}
	}
	return fmt.Sprintf("%d lengths of PeerPresent", len(tails)), a.fence(ctx, "no more")
}

// linkClaims: what a peer takes back, by whatever reason, it no longer has, also if it said twice that it had
// it. Its end takes back the rest. Those who heard from the key are told.
func linkClaims(ctx context.Context, r *meshRelay) (string, error) {
	l, err := acceptLink(ctx, r)
	if err != nil {
		return "", err
	}
	a, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	other, err := r.forwarder(ctx)
	if err != nil {
		return "", err
	}
	var keys [5]key.NodePublic
	var payloads [][]byte
	for i := range keys {
		keys[i] = key.NewNode().Public()
		payloads = append(payloads, keys[i].AppendTo(nil))
	}
	payloads = append(payloads, keys[0].AppendTo(nil))
	if err := l.claim(ctx, a, payloads...); err != nil {
		return "", err
	}
	for i, k := range keys {
		packet := []byte(fmt.Sprintf("from key %d", i))
		if err := other.forward(k, a.key, packet); err != nil {
			return "", err
		}
		if err := expectPacket(ctx, a, k, packet); err != nil {
			return "", err
		}
	}
	for i, tail := range [][]byte{
		{byte(derp.PeerGoneReasonDisconnected)},
		{byte(derp.PeerGoneReasonNotHere)}, // The answer to a packet forwarded in vain.
		{0x7f},
		nil, // The first servers sent the key alone.
	} {
		gone := keys[i].AppendTo(nil)
		if err := l.send(derp.FramePeerGone, append(gone, tail...)); err != nil {
			return "", err
		}
		if err := expectGone(ctx, a, keys[i], derp.PeerGoneReasonDisconnected); err != nil {
			return "", fmt.Errorf("PeerGone %x: %w", tail, err)
		}
	}
	// What the peer never had, and what is the relay's own, it cannot take back.
	for _, k := range []key.NodePublic{a.key, other.key, key.NewNode().Public(), keys[1]} {
		if err := l.send(derp.FramePeerGone, append(k.AppendTo(nil), 0)); err != nil {
			return "", err
		}
	}
	if err := l.claim(ctx, a); err != nil {
		return "", err
	}
	if err := other.forward(keys[4], a.key, []byte("a is still here")); err != nil {
		return "", err
	}
	if err := expectPacket(ctx, a, keys[4], []byte("a is still here")); err != nil {
		return "", err
	}
	for _, k := range keys[:2] {
		if err := notHere(ctx, a, k); err != nil {
			return "", err
		}
	}
	l.conn.Close()
	if err := expectGone(ctx, a, keys[4], derp.PeerGoneReasonDisconnected); err != nil {
		return "", fmt.Errorf("the link's end: %w", err)
	}
	return "taken back by four kinds of PeerGone and by the link's end", notHere(ctx, a, keys[4])
}
