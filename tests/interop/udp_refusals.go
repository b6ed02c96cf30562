package main

import (
	"context"
	"fmt"
	"time"

	"tailscale.com/disco"
	"tailscale.com/net/packet"
	"tailscale.com/types/key"
)

// bindFields are what the three handshake messages have in common.
type bindFields = disco.BindUDPRelayEndpointCommon

// What the relay must not do. Each sends the bad thing first and a good one after it on the same socket,
// where order holds; the good one's effect must come first and alone.
var udpRefusalCases = []testCase{
	{"udp-data-before-bound", needsSocket, 15 * time.Second, dataBeforeBound},
	{"udp-data-from-stranger", needsSocket, 15 * time.Second, dataFromStranger},
	{"udp-answer-from-other-port", needsSocket, 15 * time.Second, answerFromOtherPort},
	{"udp-answer-altered", needsSocket, 15 * time.Second, answerAltered},
	{"udp-answer-stale", needsSocket, 15 * time.Second, staleAnswer},
	{"udp-bind-generation-zero", needsSocket, 15 * time.Second, badBind(func(c *bindFields) {
		c.Generation = 0
	})},
	{"udp-bind-wrong-remote-key", needsSocket, 15 * time.Second, badBind(func(c *bindFields) {
		c.RemoteKey = key.NewDisco().Public()
	})},
	{"udp-bind-inner-vni", needsSocket, 15 * time.Second, badBind(func(c *bindFields) { c.VNI++ })},
	{"udp-bind-by-outsider", needsSocket, 15 * time.Second, bindByOutsider},
	{"udp-control-not-disco", needsSocket, 15 * time.Second, controlNotDisco},
	{"udp-strict-geneve", needsSocket, 15 * time.Second, strictGeneve},
	{"udp-short", needsSocket, 15 * time.Second, shortDatagrams},
}

// dataBeforeBound: whichever leg is bound first.
func dataBeforeBound(ctx context.Context, t *target) (string, error) {
	for _, first := range []int{0, 1} {
		s, err := newSession(ctx, t)
		if err != nil {
			return "", err
		}
		a, b, err := s.legs(ctx, anyAddress, anyAddress)
		if err != nil {
			return "", err
		}
		if first == 1 {
			a, b = b, a
		}
		if err := dataIsEarly(ctx, a, b); err != nil {
			return "", fmt.Errorf("leg %d bound first: %w", first, err)
		}
	}
	return "dropped, not queued", nil
}

// dataIsEarly sends before the session is bound, and fences so that the relay has seen it by then.
func dataIsEarly(ctx context.Context, a, b *leg) error {
	early := func(from *leg) error {
		return from.send(from.data(packet.GeneveProtocolWireGuard, []byte("too early")))
	}
	for _, step := range []func() error{
		func() error { return early(a) }, func() error { return a.fence(ctx) },
		func() error { return a.bind(ctx) },
		func() error { return early(a) }, func() error { return a.fence(ctx) },
		func() error { return early(b) }, func() error { return b.bind(ctx) },
		func() error { return exchange(ctx, a, b, "in time") },
		a.expectQuiet, b.expectQuiet,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func dataFromStranger(ctx context.Context, t *target) (string, error) {
	s, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	stranger, err := s.leg(ctx, 0, s.AddrPorts[0])
	if err != nil {
		return "", err
	}
	return "dropped", strangerIsIgnored(ctx, stranger, a, b)
}

// answerFromOtherPort: a challenge is good for the address it was sent to and no other, bound leg or not.
func answerFromOtherPort(ctx context.Context, t *target) (string, error) {
	s, err := newSession(ctx, t)
	if err != nil {
		return "", err
	}
	a, b, err := s.legs(ctx, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	if err := b.bind(ctx); err != nil {
		return "", err
	}
	thief, err := s.leg(ctx, 0, s.AddrPorts[0])
	if err != nil {
		return "", err
	}
	for _, state := range []string{"unbound", "bound"} {
		challenge, err := a.startBind(ctx)
		if err != nil {
			return "", err
		}
		if err := thief.answer(challenge.BindUDPRelayEndpointCommon); err != nil {
			return "", err
		}
		if err := thief.fence(ctx); err != nil {
			return "", err
		}
		if state == "unbound" {
			if err := a.bind(ctx); err != nil {
				return "", err
			}
		}
		if err := strangerIsIgnored(ctx, thief, a, b); err != nil {
			return "", fmt.Errorf("%s leg: %w", state, err)
		}
	}
	return "the other port gained nothing", nil
}

// answerAltered: an answer that differs from its challenge in any field binds nothing.
func answerAltered(ctx context.Context, t *target) (string, error) {
	s, err := newSession(ctx, t)
	if err != nil {
		return "", err
	}
	a, b, err := s.legs(ctx, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	if err := b.bind(ctx); err != nil {
		return "", err
	}
	alterations := map[string]func(*bindFields){
		"VNI":        func(c *bindFields) { c.VNI++ },
		"generation": func(c *bindFields) { c.Generation++ },
		"zero":       func(c *bindFields) { c.Generation = 0 },
		"remote key": func(c *bindFields) { c.RemoteKey = key.NewDisco().Public() },
		"challenge":  func(c *bindFields) { c.Challenge[31] ^= 1 },
	}
	for name, alter := range alterations {
		challenge, err := a.startBind(ctx)
		if err != nil {
			return "", err
		}
		altered := challenge.BindUDPRelayEndpointCommon
		alter(&altered)
		if err := a.answer(altered); err != nil {
			return "", err
		}
		if err := a.send(a.data(packet.GeneveProtocolWireGuard, []byte("altered "+name))); err != nil {
			return "", err
		}
		if err := a.fence(ctx); err != nil {
			return "", err
		}
		if err := b.expectQuiet(); err != nil {
			return "", fmt.Errorf("altered %s: %w", name, err)
		}
	}
	if err := a.bind(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d alterations", len(alterations)), exchange(ctx, a, b, "unaltered")
}

// severalHandshakes says whether a challenge that a newer Bind has overtaken may still be answered.
var severalHandshakes bool

// staleAnswer: a challenge is good once; with upstream's relay only until the next Bind, with one that remembers
// several handshakes until the next Answer.
func staleAnswer(ctx context.Context, t *target) (string, error) {
	s, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	moved, err := s.leg(ctx, 0, s.AddrPorts[0])
	if err != nil {
		return "", err
	}
	overtaken, err := moved.startBind(ctx)
	if err != nil {
		return "", err
	}
	if err := moved.fence(ctx); err != nil {
		return "", err
	}
	if err := moved.answer(overtaken.BindUDPRelayEndpointCommon); err != nil {
		return "", err
	}
	if severalHandshakes {
		if err := exchange(ctx, moved, b, "after an overtaken challenge"); err != nil {
			return "", err
		}
	} else if err := strangerIsIgnored(ctx, moved, a, b); err != nil {
		return "", fmt.Errorf("an overtaken challenge: %w", err)
	}
	used, err := moved.startBind(ctx)
	if err != nil {
		return "", err
	}
	if err := moved.answer(used.BindUDPRelayEndpointCommon); err != nil {
		return "", err
	}
	if err := moved.fence(ctx); err != nil {
		return "", err
	}
	// The client goes back to its first port; the answer that once moved it, heard again, does not move it.
	if err := a.bind(ctx); err != nil {
		return "", err
	}
	if err := moved.answer(used.BindUDPRelayEndpointCommon); err != nil {
		return "", err
	}
	if err := strangerIsIgnored(ctx, moved, a, b); err != nil {
		return "", fmt.Errorf("a used challenge: %w", err)
	}
	return "overtaken and used challenges", nil
}

// badBind: such a Bind draws no challenge, and does not spoil the good one after it.
func badBind(spoil func(*bindFields)) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		s, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
		if err != nil {
			return "", err
		}
		fresh, err := s.leg(ctx, 0, s.AddrPorts[0])
		if err != nil {
			return "", err
		}
		spoilt := fresh.common(fresh.generation.Add(1))
		spoil(&spoilt)
		if err := fresh.sendControl(&disco.BindUDPRelayEndpoint{BindUDPRelayEndpointCommon: spoilt}); err != nil {
			return "", err
		}
		if err := fresh.fence(ctx); err != nil { // the challenge for the good one must come first
			return "", err
		}
		if err := fresh.expectQuiet(); err != nil {
			return "", err
		}
		return "ignored", exchange(ctx, a, b, "undisturbed")
	}
}

// bindByOutsider: a key that is neither client's draws nothing, though its box opens.
func bindByOutsider(ctx context.Context, t *target) (string, error) {
	s, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	fresh, err := s.leg(ctx, 0, s.AddrPorts[0])
	if err != nil {
		return "", err
	}
	outsider := *fresh
	outsider.local = key.NewDisco()
	bind := &disco.BindUDPRelayEndpoint{BindUDPRelayEndpointCommon: outsider.common(fresh.generation.Add(1))}
	if err := outsider.sendControl(bind); err != nil {
		return "", err
	}
	if err := fresh.fence(ctx); err != nil {
		return "", err
	}
	return "ignored", strangerIsIgnored(ctx, fresh, a, b)
}

// controlNotDisco: a packet with the control bit and WireGuard's protocol is not valid and not forwarded.
func controlNotDisco(ctx context.Context, t *target) (string, error) {
	_, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	if err := a.send(append(a.geneve(true, packet.GeneveProtocolWireGuard), "control"...)); err != nil {
		return "", err
	}
	return "dropped", afterBad(ctx, a, b)
}

// strictGeneve: upstream's relay checks none of these and fails this case, because the relay under test is
// stricter on purpose: upstream's clients do not accept such a packet as Geneve, and a relay that forwarded
// one would carry plain traffic whose bytes match a session by chance.
func strictGeneve(ctx context.Context, t *target) (string, error) {
	_, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	good := a.data(packet.GeneveProtocolWireGuard, []byte("strict"))
	bad := map[string]func([]byte){
		"version 1":         func(h []byte) { h[0] = 0x40 },
		"an option length":  func(h []byte) { h[0] = 0x01 },
		"the critical bit":  func(h []byte) { h[1] = 0x40 },
		"a reserved bit":    func(h []byte) { h[1] = 0x01 },
		"the reserved byte": func(h []byte) { h[7] = 0x01 },
		"another protocol":  func(h []byte) { h[2], h[3] = 0x65, 0x58 },
	}
	for name, spoil := range bad {
		pkt := append([]byte(nil), good...)
		spoil(pkt)
		if err := a.send(pkt); err != nil {
			return "", err
		}
		if err := afterBad(ctx, a, b); err != nil {
			return "", fmt.Errorf("with %s: %w", name, err)
		}
	}
	return fmt.Sprintf("%d headers dropped", len(bad)), nil
}

// shortDatagrams: the one byte a client's kernel probe sends, and headers cut off.
func shortDatagrams(ctx context.Context, t *target) (string, error) {
	_, a, b, err := boundSession(ctx, t, anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	header := a.geneve(false, packet.GeneveProtocolWireGuard)
	bind := append(a.geneve(true, packet.GeneveProtocolDisco), disco.Magic...)
	for _, pkt := range [][]byte{{}, {0x07}, header[:7], bind, append(bind, make([]byte, 55)...)} {
		if err := a.send(pkt); err != nil {
			return "", err
		}
		if err := afterBad(ctx, a, b); err != nil {
			return "", fmt.Errorf("after %d bytes: %w", len(pkt), err)
		}
	}
	return "dropped", nil
}

// afterBad: a has just sent what must not be forwarded; the next thing b gets is a good packet, and it is
// all.
func afterBad(ctx context.Context, a, b *leg) error {
	if err := exchange(ctx, a, b, "after a bad one"); err != nil {
		return err
	}
	return b.expectQuiet()
}
