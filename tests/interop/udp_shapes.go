package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
	"tailscale.com/disco"
	"tailscale.com/net/packet"
	"tailscale.com/types/key"
)

// Shapes of traffic that upstream's own tests leave out: what kernels and hosts make of it.
var udpShapeCases = []testCase{
	{"udp-allocate-same-pair", needsSocket, 15 * time.Second, samePair},
	{"udp-train", needsSocket, 15 * time.Second, trainCase},
	{"udp-train-of-two-sessions", needsSocket, 15 * time.Second, mixedTrainCase},
	{"udp-ping-zero-node-key", needsSocket, 15 * time.Second, zeroNodeKeyCase},
	{"udp-challenge-from-address-asked", needsSocket, 15 * time.Second, multiAddressCase},
	{"udp-link-local", needsSocket, 15 * time.Second, linkLocalCase},
}

// train sends whole datagrams of one length, of which the last may be shorter, as one (UDP_SEGMENT).
func (l *leg) train(datagrams ...[]byte) error {
	size := len(datagrams[0])
	oob := make([]byte, unix.CmsgSpace(2))
	header := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
	header.Level, header.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	header.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(oob[unix.CmsgLen(0):], uint16(size))
	_, _, err := l.conn.WriteMsgUDP(bytes.Join(datagrams, nil), oob, nil)
	return err
}

// trainCase: each datagram of a train arrives as it was, its short tail too.
func trainCase(ctx context.Context, t *target) (string, error) {
	_, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	var all [][]byte
	for i := range 40 {
		all = append(all, a.data(packet.GeneveProtocolWireGuard, bytes.Repeat([]byte{byte(i)}, 1200)))
	}
	all = append(all, a.data(packet.GeneveProtocolWireGuard, []byte("the tail")))
	if err := a.train(all...); err != nil {
		return "", err
	}
	for i, want := range all {
		if err := b.expectData(ctx, want); err != nil {
			return "", fmt.Errorf("datagram %d: %w", i, err)
		}
	}
	return fmt.Sprintf("%d datagrams", len(all)), b.expectQuiet()
}

// mixedTrainCase: one socket is a leg of two sessions and sends a train of both; each datagram goes to its
// own session's other client, and datagrams of none are dropped.
func mixedTrainCase(ctx context.Context, t *target) (string, error) {
	_, a1, b1, err := boundSession(ctx, t, netip.Addr.Is4, netip.Addr.Is4)
	if err != nil {
		return "", err
	}
	other, err := newSession(ctx, t)
	if err != nil {
		return "", err
	}
	a2, b2, err := other.legs(ctx, netip.Addr.Is4, netip.Addr.Is4)
	if err != nil {
		return "", err
	}
	a2.conn = a1.conn
	for _, l := range []*leg{a2, b2} {
		if err := l.bind(ctx); err != nil {
			return "", err
		}
	}
	var all [][]byte
	var to []*leg
	for i := range 30 {
		from, at := a1, b1
		if i%3 == 1 {
			from, at = a2, b2
		}
		all = append(all, from.data(packet.GeneveProtocolWireGuard, bytes.Repeat([]byte{byte(i)}, 300)))
		to = append(to, at)
	}
	// A datagram of a session that does not exist, and one that is no Geneve at all.
	nobody := *a1
	nobody.vni = 1<<24 - 1
	all = append(all, nobody.data(packet.GeneveProtocolWireGuard, make([]byte, 300)), make([]byte, 308))
	if err := a1.train(all...); err != nil {
		return "", err
	}
	for i, at := range to {
		if err := at.expectData(ctx, all[i]); err != nil {
			return "", fmt.Errorf("datagram %d: %w", i, err)
		}
	}
	for _, l := range []*leg{b1, b2} {
		if err := l.expectQuiet(); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d datagrams of two sessions", len(to)), nil
}

// zeroNodeKeyCase: a Ping whose node key is 32 zero bytes passes as it is, and upstream's parser takes the
// zeros for padding.
func zeroNodeKeyCase(ctx context.Context, t *target) (string, error) {
	_, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	plain := append((&disco.Ping{TxID: [12]byte{1, 2, 3}}).AppendMarshal(nil), make([]byte, 32)...)
	sealed := a.local.Shared(b.local.Public()).Seal(plain)
	ping := append(a.local.Public().AppendTo([]byte(disco.Magic)), sealed...)
	whole := a.data(packet.GeneveProtocolDisco, ping)
	if err := a.send(whole); err != nil {
		return "", err
	}
	if err := b.expectData(ctx, whole); err != nil {
		return "", err
	}
	parsed, err := disco.Parse(plain)
	if err != nil {
		return "", err
	}
	if got, ok := parsed.(*disco.Ping); !ok || !got.NodeKey.IsZero() || got.Padding != 32 {
		return "", fmt.Errorf("upstream reads it as %+v", parsed)
	}
	return fmt.Sprintf("%d bytes", len(whole)), nil
}

// multiAddressCase: a host with several addresses answers from the one that was asked. Upstream's relay lets the
// kernel choose, and fails this case: its challenge comes from 127.0.0.1, which a connected socket does not
// take.
func multiAddressCase(ctx context.Context, t *target) (string, error) {
	s, err := newSession(ctx, t)
	if err != nil {
		return "", err
	}
	at, err := s.address(netip.Addr.Is4)
	if err != nil {
		return "", err
	}
	if !at.Addr().IsLoopback() {
		return "", skipError("the relay is not on this host's loopback")
	}
	legs := [2]*leg{}
	for i, ip := range []string{"127.0.0.2", "127.0.0.77"} {
		if legs[i], err = s.leg(ctx, i, netip.AddrPortFrom(netip.MustParseAddr(ip), at.Port())); err != nil {
			return "", err
		}
		wait, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := legs[i].bind(wait)
		cancel()
		if err != nil {
			return "", err
		}
	}
	return "challenges and data", exchange(ctx, legs[0], legs[1], "from the address asked")
}

// linkLocalCase: a client with a scoped address is answered on its own link.
func linkLocalCase(ctx context.Context, t *target) (string, error) {
	s, err := newSession(ctx, t)
	if err != nil {
		return "", err
	}
	v6, err := s.address(netip.Addr.Is6)
	if err != nil {
		return "", err
	}
	local, err := linkLocal()
	if err != nil {
		return "", err
	}
	a, err := s.leg(ctx, 0, netip.AddrPortFrom(local, v6.Port()))
	if err != nil {
		return "", err
	}
	b, err := s.leg(ctx, 1, v6)
	if err != nil {
		return "", err
	}
	for _, l := range []*leg{a, b} {
		if err := l.bind(ctx); err != nil {
			return "", err
		}
	}
	return local.String(), exchange(ctx, a, b, "scoped")
}

// linkLocal is a scoped address of this host.
func linkLocal() (netip.Addr, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return netip.Addr{}, err
		}
		for _, a := range addrs {
			prefix, err := netip.ParsePrefix(a.String())
			if err == nil && prefix.Addr().Is6() && prefix.Addr().IsLinkLocalUnicast() && i.Flags&net.FlagUp != 0 {
				return prefix.Addr().WithZone(i.Name), nil
			}
		}
	}
	return netip.Addr{}, skipError("this host has no link-local address")
}

// samePair: a pair needs two different keys.
func samePair(ctx context.Context, t *target) (string, error) {
	one := key.NewDisco().Public()
	for _, pair := range [][2]key.DiscoPublic{{{}, {}}, {one, one}} {
		body := fmt.Sprintf(`{"ClientDisco":[%q,%q]}`, pair[0].String(), pair[1].String())
		resp, answer, err := postEndpoints(ctx, t, []byte(body))
		if err != nil {
			return "", err
		}
		if resp.StatusCode != 400 {
			return "", fmt.Errorf("%s answered %s %.100q, want 400", body, resp.Status, answer)
		}
	}
	return "refused", nil
}
