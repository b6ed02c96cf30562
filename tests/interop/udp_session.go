package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"tailscale.com/disco"
	"tailscale.com/net/packet"
)

var udpCases = []testCase{
	{"udp-v4", needsSocket, 30 * time.Second, sessionCase(netip.Addr.Is4, netip.Addr.Is4)},
	{"udp-v6", needsSocket, 30 * time.Second, sessionCase(netip.Addr.Is6, netip.Addr.Is6)},
	{"udp-mixed", needsSocket, 30 * time.Second, sessionCase(netip.Addr.Is4, netip.Addr.Is6)},
	{"udp-rebind", needsSocket, 15 * time.Second, rebindCase(netip.Addr.Is4)},
	{"udp-rebind-other-family", needsSocket, 15 * time.Second, rebindCase(netip.Addr.Is6)},
	{"udp-duplicate-when-bound", needsSocket, 15 * time.Second, duplicateWhenBound},
}

// udpPackets each way, and how many may be under way: sockets of the relay hold at least this many.
const (
	udpPackets = 1000
	udpWindow  = 16
)

// address is the first advertised address that fits.
func (s *session) address(fits func(netip.Addr) bool) (netip.AddrPort, error) {
	for _, at := range s.AddrPorts {
		if fits(at.Addr()) {
			return at, nil
		}
	}
	return netip.AddrPort{}, skipError(fmt.Sprintf("the relay advertises no such address: %v", s.AddrPorts))
}

// legs opens both clients' sockets, unbound.
func (s *session) legs(ctx context.Context, fitsA, fitsB func(netip.Addr) bool) (a, b *leg, err error) {
	atA, err := s.address(fitsA)
	if err != nil {
		return nil, nil, err
	}
	atB, err := s.address(fitsB)
	if err != nil {
		return nil, nil, err
	}
	if a, err = s.leg(ctx, 0, atA); err != nil {
		return nil, nil, err
	}
	b, err = s.leg(ctx, 1, atB)
	return a, b, err
}

func anyAddress(netip.Addr) bool { return true }

// boundSession is a fresh session with both legs bound.
func boundSession(
	ctx context.Context, t *target, fitsA, fitsB func(netip.Addr) bool,
) (s *session, a, b *leg, err error) {
	if s, err = newSession(ctx, t); err != nil {
		return nil, nil, nil, err
	}
	if a, b, err = s.legs(ctx, fitsA, fitsB); err != nil {
		return nil, nil, nil, err
	}
	if err = a.bind(ctx); err != nil {
		return nil, nil, nil, err
	}
	return s, a, b, b.bind(ctx)
}

// exchange sends one packet each way and wants it unchanged, as the very next datagram.
func exchange(ctx context.Context, a, b *leg, what string) error {
	for _, way := range [][2]*leg{{a, b}, {b, a}} {
		pkt := way[0].data(packet.GeneveProtocolWireGuard, []byte(what))
		if err := way[0].send(pkt); err != nil {
			return err
		}
		if err := way[1].expectData(ctx, pkt); err != nil {
			return fmt.Errorf("%s, from %v: %w", what, way[0], err)
		}
	}
	return nil
}

// sessionCase: data both ways, every byte checked, with both protocols a session carries.
func sessionCase(fitsA, fitsB func(netip.Addr) bool) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		_, a, b, err := boundSession(ctx, t, fitsA, fitsB)
		if err != nil {
			return "", err
		}
		results := make(chan error, 2)
		go func() { results <- stream(ctx, 4, a, b) }()
		go func() { results <- stream(ctx, 5, b, a) }()
		for range 2 {
			if err := <-results; err != nil {
				return "", err
			}
		}
		return fmt.Sprintf("%d packets each way, %v and %v", udpPackets, a, b), nil
	}
}

// stream sends in a closed window. One sender's packets keep their order: its address hashes to one socket.
func stream(ctx context.Context, direction byte, from, to *leg) error {
	whole := func(seq uint64) []byte {
		payload := dataPacket(direction, seq)
		if seq%10 == 9 {
			return from.data(packet.GeneveProtocolDisco, append([]byte(disco.Magic), payload...))
		}
		return from.data(packet.GeneveProtocolWireGuard, payload)
	}
	sent := uint64(0)
	for seq := range uint64(udpPackets) {
		for ; sent < udpPackets && sent < seq+udpWindow; sent++ {
			if err := from.send(whole(sent)); err != nil {
				return err
			}
		}
		if err := to.expectData(ctx, whole(seq)); err != nil {
			return fmt.Errorf("packet %d: %w", seq, err)
		}
	}
	return nil
}

// rebindCase: a client takes a new port by a new handshake. From then on the old one is a stranger's.
func rebindCase(fitsNew func(netip.Addr) bool) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		s, a, b, err := boundSession(ctx, t, netip.Addr.Is4, netip.Addr.Is4)
		if err != nil {
			return "", err
		}
		if err := exchange(ctx, a, b, "before"); err != nil {
			return "", err
		}
		for i, moved := range []**leg{&a, &b} {
			old := *moved
			at, err := s.address(fitsNew)
			if err != nil {
				return "", err
			}
			if *moved, err = s.leg(ctx, i, at); err != nil {
				return "", err
			}
			// A Bind alone moves nothing: until the answer the old port has the leg.
			challenge, err := (*moved).startBind(ctx)
			if err != nil {
				return "", err
			}
			other := []*leg{b, a}[i]
			if err := exchange(ctx, old, other, "challenged, not answered"); err != nil {
				return "", err
			}
			if err := (*moved).answer(challenge.BindUDPRelayEndpointCommon); err != nil {
				return "", err
			}
			if err := (*moved).fence(ctx); err != nil {
				return "", err
			}
			if err := strangerIsIgnored(ctx, old, *moved, other); err != nil {
				return "", fmt.Errorf("old port: %w", err)
			}
		}
		return "each side to a new port", nil
	}
}

// strangerIsIgnored: data from this socket reaches nobody, and none of the session's data reaches it.
func strangerIsIgnored(ctx context.Context, stranger, bound, other *leg) error {
	for range 3 {
		pkt := stranger.data(packet.GeneveProtocolWireGuard, []byte("from a stranger"))
		if err := stranger.send(pkt); err != nil {
			return err
		}
	}
	if err := stranger.fence(ctx); err != nil {
		return err
	}
	if err := exchange(ctx, bound, other, "after a stranger"); err != nil {
		return err
	}
	for _, l := range []*leg{stranger, bound, other} {
		if err := l.expectQuiet(); err != nil {
			return err
		}
	}
	return nil
}

func duplicateWhenBound(ctx context.Context, t *target) (string, error) {
	s, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	again, err := allocate(ctx, t, s.keys[1].Public(), s.keys[0].Public())
	if err != nil {
		return "", err
	}
	if diff := differs(s.ServerEndpoint, again); diff != "" {
		return "", fmt.Errorf("asked again: %s", diff)
	}
	return "same endpoint, session undisturbed", exchange(ctx, a, b, "after the duplicate")
}
