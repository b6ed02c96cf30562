package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tailscale.com/derp"
)

// What no stock client sends, or not in this shape: written straight into the connection.
var frameCases = []testCase{
	{"derp-unknown-frame", needsURL, 15 * time.Second, unknownFrame},
	{"derp-byte-by-byte", needsURL, 30 * time.Second, byteByByte},
	{"derp-oversize", needsURL, 15 * time.Second, oversize},
	{"derp-bad-notepreferred", needsURL, 15 * time.Second, badNotePreferred},
}

func frame(kind derp.FrameType, payload []byte) []byte {
	n := len(payload)
	return append([]byte{byte(kind), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, payload...)
}

// unknownFrame: types of the future are skipped, up to the length of the longest SendPacket.
func unknownFrame(ctx context.Context, t *target) (string, error) {
	p, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer p.leave()
	for _, n := range []int{0, 1, 10_000, derp.MaxPacketSize + derp.KeyLen} {
		if _, err := p.raw.Write(frame(0x7f, make([]byte, n))); err != nil {
			return "", err
		}
		if err := p.fence(ctx, "skipped"); err != nil {
			return "", fmt.Errorf("after an unknown frame of %d bytes: %w", n, err)
		}
	}
	return "skipped", nil
}

// byteByByte: every byte of two frames in a TLS record of its own.
func byteByByte(ctx context.Context, t *target) (string, error) {
	a, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer a.leave()
	b, err := loggedIn(ctx, t, fastStart)
	if err != nil {
		return "", err
	}
	defer b.leave()
	pkt := dataPacket(3, 1)[:100]
	stream := frame(derp.FrameSendPacket, append(b.key.AppendTo(nil), pkt...))
	stream = append(stream, frame(derp.FramePing, []byte("in parts"))...)
	for i := range stream {
		if _, err := a.raw.Write(stream[i : i+1]); err != nil {
			return "", err
		}
	}
	if err := expectPacket(ctx, b, a.key, pkt); err != nil {
		return "", err
	}
	pong, err := expect[derp.PongMessage](ctx, a)
	if err == nil && string(pong[:]) != "in parts" {
		err = fmt.Errorf("pong says %q", pong)
	}
	return fmt.Sprintf("%d records", len(stream)), err
}

// oversize: a SendPacket one byte too long closes the connection.
func oversize(ctx context.Context, t *target) (string, error) {
	p, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer p.leave()
	// Header and key alone: upstream looks at the length once it has the key, and a server may close before
	// it read more.
	n := derp.KeyLen + derp.MaxPacketSize + 1
	header := []byte{byte(derp.FrameSendPacket), 0, byte(n >> 16), byte(n >> 8), byte(n)}
	if _, err := p.raw.Write(p.key.AppendTo(header)); err != nil {
		return "", err
	}
	return "closed", expectClosed(ctx, p)
}

func badNotePreferred(ctx context.Context, t *target) (string, error) {
	p, err := loggedIn(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer p.leave()
	if _, err := p.raw.Write(frame(derp.FrameNotePreferred, []byte{1, 1})); err != nil {
		return "", err
	}
	return "closed", expectClosed(ctx, p)
}

// expectClosed fails unless the server ends the connection without another message.
func expectClosed(ctx context.Context, p *peer) error {
	m, err := p.next(ctx)
	switch {
	case err == nil:
		return fmt.Errorf("got %T, want the connection closed", m)
	case ctx.Err() != nil:
		return errors.New("the server did not close the connection")
	}
	return nil
}
