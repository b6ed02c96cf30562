package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

var trafficCases = []testCase{
	{"derp-10k", needsURL, 90 * time.Second, tenThousand},
	{"derp-large", needsURL, 15 * time.Second, largestPacket},
	{"derp-empty-packet", needsURL, 15 * time.Second, emptyPacket},
	{"derp-ping", needsURL, 15 * time.Second, ping},
	{"derp-notepreferred", needsURL, 15 * time.Second, notePreferred},
}

const (
	// packets each way, and how many of one direction may be under way at once.
	packets = 10_000
	window  = 64

	maxData = 1400
)

// dataPacket is packet number seq of a direction: 1 to 1400 bytes, the sequence number where it fits, the
// rest from a generator seeded with direction and number. Both ends make it; nothing is taken on trust.
func dataPacket(direction byte, seq uint64) []byte {
	var seed [32]byte
	seed[0] = direction
	binary.BigEndian.PutUint64(seed[1:], seq)
	random := rand.NewChaCha8(seed)
	b := make([]byte, 1+random.Uint64()%maxData)
	random.Read(b)
	if len(b) >= 8 {
		binary.BigEndian.PutUint64(b, seq)
	}
	return b
}

// tenThousand: two stock clients, both directions at once, a closed window: a packet is sent only when
// fewer than 64 of its direction are under way, so a relay has no excuse to drop one.
func tenThousand(ctx context.Context, t *target) (string, error) {
	a, err := loggedIn(ctx, t, fastStart)
	if err != nil {
		return "", err
	}
	defer a.leave()
	b, err := loggedIn(ctx, t, fastStart)
	if err != nil {
		return "", err
	}
	defer b.leave()
	results := make(chan error, 4)
	start := time.Now()
	exchange := func(direction byte, from, to *peer) {
		credit := make(chan struct{}, window)
		for range window {
			credit <- struct{}{}
		}
		go func() { results <- sendAll(ctx, direction, from, to.key, credit) }()
		go func() { results <- receiveAll(ctx, direction, to, from.key, credit) }()
	}
	exchange(0, a, b)
	exchange(1, b, a)
	for range 4 {
		if err := <-results; err != nil {
			return "", err
		}
	}
	rate := float64(2*packets) / time.Since(start).Seconds()
	return fmt.Sprintf("%d + %d packets, window %d, all equal and in order, %.0f packets/s",
		packets, packets, window, rate), nil
}

func sendAll(
	ctx context.Context, direction byte, from *peer, to key.NodePublic, credit <-chan struct{},
) error {
	for seq := range uint64(packets) {
		select {
		case <-credit:
		case <-ctx.Done():
			return fmt.Errorf("direction %d: no credit for packet %d: %w", direction, seq, ctx.Err())
		}
		if err := from.Send(to, dataPacket(direction, seq)); err != nil {
			return fmt.Errorf("direction %d: sending packet %d: %w", direction, seq, err)
		}
	}
	return nil
}

func receiveAll(
	ctx context.Context, direction byte, to *peer, from key.NodePublic, credit chan<- struct{},
) error {
	for seq := range uint64(packets) {
		if err := expectPacket(ctx, to, from, dataPacket(direction, seq)); err != nil {
			return fmt.Errorf("direction %d: packet %d: %w", direction, seq, err)
		}
		credit <- struct{}{}
	}
	return nil
}

// pair is two clients logged in with fast start.
func pair(ctx context.Context, t *target) (a, b *peer, err error) {
	if a, err = loggedIn(ctx, t, fastStart); err != nil {
		return nil, nil, err
	}
	b, err = loggedIn(ctx, t, fastStart)
	return a, b, err
}

func largestPacket(ctx context.Context, t *target) (string, error) {
	a, b, err := pair(ctx, t)
	if err != nil {
		return "", err
	}
	defer a.leave()
	defer b.leave()
	large := bytes.Repeat(dataPacket(2, 0)[:1], derp.MaxPacketSize)
	for i := range large {
		large[i] = byte(i) ^ byte(i>>8)
	}
	// Small ones on both sides: the large one must not disturb its neighbours.
	for _, pkt := range [][]byte{{1}, large, {2}, large[1:], {3}} {
		if err := a.Send(b.key, pkt); err != nil {
			return "", err
		}
		if err := expectPacket(ctx, b, a.key, pkt); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d bytes", len(large)), nil
}

func emptyPacket(ctx context.Context, t *target) (string, error) {
	a, b, err := pair(ctx, t)
	if err != nil {
		return "", err
	}
	defer a.leave()
	defer b.leave()
	for _, pkt := range [][]byte{{}, []byte("after")} {
		if err := a.Send(b.key, pkt); err != nil {
			return "", err
		}
		if err := expectPacket(ctx, b, a.key, pkt); err != nil {
			return "", err
		}
	}
	return "a packet of no bytes is a packet", nil
}

func ping(ctx context.Context, t *target) (string, error) {
	p, err := loggedIn(ctx, t, fastStart)
	if err != nil {
		return "", err
	}
	defer p.leave()
	start := time.Now()
	for range 3 {
		if err := p.Ping(ctx); err != nil {
			return "", err
		}
	}
	took := time.Since(start) / 3
	return fmt.Sprintf("%v a round trip", took.Round(time.Microsecond)), p.fence(ctx, "exact")
}

func notePreferred(ctx context.Context, t *target) (string, error) {
	p, err := newPeer(ctx, t, fastStart, key.NewNode())
	if err != nil {
		return "", err
	}
	p.NotePreferred(true) // sent right behind ClientInfo, before anything of the server's was read
	if err := p.login(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	if _, err := expect[derp.ServerInfoMessage](ctx, p); err != nil {
		return "", err
	}
	for _, home := range []bool{false, true, false} {
		p.NotePreferred(home)
		if err := p.fence(ctx, "home"); err != nil {
			return "", err
		}
	}
	return "at login and after", nil
}
