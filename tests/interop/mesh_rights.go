package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// Who may do what a mesh peer may.
var meshRightsCases = []testCase{
	{"mesh-no-key", needsServer, 15 * time.Second, meshCase(meshNoKey)},
	{"mesh-wrong-key", needsServer, 15 * time.Second, meshCase(meshWrongKey)},
	{"mesh-keyless-relay", needsServer, 15 * time.Second, relayCase(meshKeylessRelay)},
	{"mesh-key-spelling", needsServer, 15 * time.Second, relayCase(meshKeySpelling)},
	{"mesh-key-malformed", needsServer, 15 * time.Second, meshCase(meshKeyMalformed)},
	{"mesh-prober", needsServer, 15 * time.Second, meshCase(meshProber)},
	{"mesh-frame-lengths", needsServer, 15 * time.Second, meshCase(meshFrameLengths)},
	{"mesh-flags-refused", needsServer, 20 * time.Second, relayCase(meshFlagsRefused)},
}

// forwardFrame is a whole ForwardPacket frame.
func forwardFrame(from, to key.NodePublic, packet []byte) []byte {
	return frame(derp.FrameForwardPacket, append(to.AppendTo(from.AppendTo(nil)), packet...))
}

// refusesMeshFrames: each thing that only a mesh peer may do ends the connection of who logs in this way, and
// does nothing else. What a regular client may do still works.
func refusesMeshFrames(ctx context.Context, r *meshRelay, how member) error {
	victim, err := r.client(ctx)
	if err != nil {
		return err
	}
	defer victim.leave()
	for name, bytes := range map[string][]byte{
		"WatchConns":    frame(derp.FrameWatchConns, nil),
		"ForwardPacket": forwardFrame(key.NewNode().Public(), victim.key, []byte("not yours to forward")),
		"ClosePeer":     frame(derp.FrameClosePeer, victim.key.AppendTo(nil)),
	} {
		p, err := r.login(ctx, how)
		if err != nil {
			return err
		}
		defer p.leave()
		if err := p.Send(victim.key, []byte(name)); err != nil {
			return err
		}
		if err := expectPacket(ctx, victim, p.key, []byte(name)); err != nil {
			return err
		}
		if _, err := p.raw.Write(bytes); err != nil {
			return err
		}
		if err := expectClosed(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		// It heard from p, so that p's end is the next that it is told.
		if err := expectGone(ctx, victim, p.key, derp.PeerGoneReasonDisconnected); err != nil {
			return fmt.Errorf("after %s: %w", name, err)
		}
		if err := victim.fence(ctx, "unharmed"); err != nil {
			return fmt.Errorf("after %s: %w", name, err)
		}
	}
	return nil
}

func meshNoKey(ctx context.Context, r *meshRelay) (string, error) {
	return "three frames end the connection", refusesMeshFrames(ctx, r, member{})
}

// meshWrongKey: the holder of another mesh key is a regular client.
func meshWrongKey(ctx context.Context, r *meshRelay) (string, error) {
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, w.meshed()); err != nil {
		return "", err
	}
	wrong, err := key.ParseDERPMesh(strings.Repeat("0f", 32))
	if err != nil {
		return "", err
	}
	p, err := r.login(ctx, member{meshKey: wrong})
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, p.regular()); err != nil {
		return "", err
	}
	return "a regular client", refusesMeshFrames(ctx, r, member{meshKey: wrong})
}

// meshKeylessRelay: a relay without a mesh key has no mesh peers, whatever key they show. Sixty-four zeros,
// which are no key, least of all.
func meshKeylessRelay(ctx context.Context, r *meshRelay) (string, error) {
	if err := r.start(ctx); err != nil {
		return "", err
	}
	if err := refusesMeshFrames(ctx, r, member{meshKey: r.meshKey}); err != nil {
		return "", err
	}
	return "no mesh peers", zerosAreNoKey(ctx, r)
}

func zerosAreNoKey(ctx context.Context, r *meshRelay) error {
	zeros := fmt.Sprintf(`{"meshKey":"%s","version":2}`, strings.Repeat("0", 64))
	p, err := r.greetJSON(ctx, key.NewNode(), zeros, "", "")
	if err != nil {
		return err
	}
	if err := p.fence(); err != nil {
		return err
	}
	if _, err := p.conn.Write(frame(derp.FrameWatchConns, nil)); err != nil {
		return err
	}
	if kind, _, err := derp.ReadFrameHeader(p.frame); err == nil {
		return fmt.Errorf("a mesh key of zeros: got frame %#x, want the connection closed", byte(kind))
	}
	if ctx.Err() != nil {
		return errors.New("a mesh key of zeros: the connection was not closed")
	}
	return nil
}

// meshKeySpelling: upper and lower case are the same key, in the relay's file, where space surrounds it, and
// in a client's ClientInfo, whose members have names in any case.
func meshKeySpelling(ctx context.Context, r *meshRelay) (string, error) {
	lower := r.meshKey.String()
	upper := strings.ToUpper(lower)
	spellings := []string{
		fmt.Sprintf(`{"meshKey":"%s","version":2,"CanAckPings":false}`, lower),
		fmt.Sprintf(`{"meshKey":"%s","version":2,"CanAckPings":false}`, upper),
		fmt.Sprintf(`{"MESHKEY":"%s"}`, upper[:32]+lower[32:]),
	}
	for _, text := range []string{" \t" + upper + "\r\n\n", lower} {
		if err := r.writeMeshKey(text); err != nil {
			return "", err
		}
		if err := r.start(ctx, r.keyed()); err != nil {
			return "", err
		}
		for _, info := range spellings {
			p, err := r.greetJSON(ctx, key.NewNode(), info, "", "")
			if err != nil {
				return "", err
			}
			if _, err := p.conn.Write(frame(derp.FrameWatchConns, nil)); err != nil {
				return "", err
			}
			if _, err := p.expect(derp.FramePeerPresent); err != nil {
				return "", fmt.Errorf("file %q, ClientInfo %s: %w", text, info, err)
			}
		}
		if err := zerosAreNoKey(ctx, r); err != nil {
			return "", err
		}
		r.stop()
	}
	return "any case is the same key", nil
}

// meshKeyMalformed: what is no mesh key at all refuses the login.
func meshKeyMalformed(ctx context.Context, r *meshRelay) (string, error) {
	good := r.meshKey.String()
	bad := []string{`""`, `null`, `7`, `"` + good[1:] + `"`, `"` + good + `00"`, `"x` + good[1:] + `"`}
	for _, value := range bad {
		info := fmt.Sprintf(`{"meshKey":%s,"version":2}`, value)
		_, err := r.greetJSON(ctx, key.NewNode(), info, "", "")
		if err == nil {
			return "", fmt.Errorf("logged in with %s", info)
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("not refused with %s", info)
		}
	}
	return fmt.Sprintf("%d refused", len(bad)), nil
}

// meshProber: who holds the mesh key and never watches is told of nobody, and may do the rest.
func meshProber(ctx context.Context, r *meshRelay) (string, error) {
	prober, err := r.login(ctx, member{meshKey: r.meshKey, prober: true})
	if err != nil {
		return "", err
	}
	two, err := r.clients(ctx, 2)
	if err != nil {
		return "", err
	}
	if err := prober.fence(ctx, "told of nobody"); err != nil {
		return "", err
	}
	if err := prober.Send(two[0].key, []byte("its own")); err != nil {
		return "", err
	}
	if err := expectPacket(ctx, two[0], prober.key, []byte("its own")); err != nil {
		return "", err
	}
	if err := prober.ForwardPacket(two[1].key, two[0].key, derp.LoanBytes([]byte("forwarded"))); err != nil {
		return "", err
	}
	if err := expectPacket(ctx, two[0], two[1].key, []byte("forwarded")); err != nil {
		return "", err
	}
	if err := prober.ClosePeer(two[1].key); err != nil {
		return "", err
	}
	if err := expectClosed(ctx, two[1]); err != nil {
		return "", err
	}
	return "forwards and closes, is told nothing", prober.fence(ctx, "told of nobody")
}

// meshFrameLengths: a mesh peer's frame of an impossible length ends its connection.
func meshFrameLengths(ctx context.Context, r *meshRelay) (string, error) {
	pair := key.NewNode().Public().AppendTo(key.NewNode().Public().AppendTo(nil))
	tooLong := len(pair) + derp.MaxPacketSize + 1
	for name, bytes := range map[string][]byte{
		"WatchConns of 1 byte":      frame(derp.FrameWatchConns, []byte{0}),
		"ClosePeer of 31 bytes":     frame(derp.FrameClosePeer, pair[:31]),
		"ClosePeer of 33 bytes":     frame(derp.FrameClosePeer, pair[:33]),
		"ForwardPacket of 63 bytes": frame(derp.FrameForwardPacket, pair[:63]),
		// Header and keys alone, because a server may close before it reads more.
		"ForwardPacket too long": append([]byte{
			byte(derp.FrameForwardPacket), 0, byte(tooLong >> 16), byte(tooLong >> 8), byte(tooLong),
		}, pair...),
	} {
		p, err := r.forwarder(ctx)
		if err != nil {
			return "", err
		}
		// Of the right length, the frames are its right.
		if err := p.ClosePeer(key.NewNode().Public()); err != nil {
			return "", err
		}
		if err := p.fence(ctx, "a right"); err != nil {
			return "", err
		}
		if _, err := p.raw.Write(bytes); err != nil {
			return "", err
		}
		if err := expectClosed(ctx, p); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return "five end the connection", nil
}

// meshFlagsRefused: a relay does not start with a mesh that cannot be.
func meshFlagsRefused(ctx context.Context, r *meshRelay) (string, error) {
	for _, c := range []struct {
		name, keyText string
		args          []string
	}{
		{"-mesh-with without a key", "", []string{"-mesh-with=127.0.0.1:9"}},
		{"an entry of three parts", r.meshKey.String(), []string{r.keyed(), "-mesh-with=a.test/127.0.0.1/c"}},
		{"a key of 63 digits", r.meshKey.String()[1:], []string{r.keyed()}},
		{"a key that is not hex", hex.EncodeToString(make([]byte, 31)) + "xy", []string{r.keyed()}},
		{"no such key file", r.meshKey.String(), []string{"-mesh-psk-file=" + r.file("absent")}},
	} {
		if err := r.writeMeshKey(c.keyText); err != nil {
			return "", err
		}
		if err := r.launch(c.args...); err != nil {
			return "", err
		}
		select {
		case <-r.ended:
		case <-ctx.Done():
			return "", fmt.Errorf("%s: the relay runs", c.name)
		case <-time.After(3 * time.Second):
			return "", fmt.Errorf("%s: the relay runs", c.name)
		}
		if code := r.command.ProcessState.ExitCode(); code <= 0 {
			return "", fmt.Errorf("%s: the relay ended with status %d", c.name, code)
		}
	}
	return "five refused", nil
}
