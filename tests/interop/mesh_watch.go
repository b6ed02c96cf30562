package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// What a relay tells those who watch it.
var meshWatchCases = []testCase{
	{"mesh-watch", needsServer, 15 * time.Second, meshCase(meshWatch)},
	{"mesh-watch-order", needsServer, 15 * time.Second, meshCase(meshWatchOrder)},
	{"mesh-watch-flags", needsServer, 15 * time.Second, meshCase(meshWatchFlags)},
	{"mesh-watch-duplicates", needsServer, 15 * time.Second, meshCase(meshWatchDuplicates)},
	{"mesh-watch-twice", needsServer, 15 * time.Second, meshCase(meshWatchTwice)},
	{"mesh-watch-own-key", needsServer, 15 * time.Second, meshCase(meshWatchOwnKey)},
}

// meshWatch: a watcher is told at once of all who are there, itself among them, then of who comes and goes.
func meshWatch(ctx context.Context, r *meshRelay) (string, error) {
	w1, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w1, w1.meshed()); err != nil {
		return "", err
	}
	clients := make([]*peer, 2)
	for i := range clients {
		if clients[i], err = r.client(ctx); err != nil {
			return "", err
		}
		if err := expectPresent(ctx, w1, clients[i].regular()); err != nil {
			return "", err
		}
	}
	w2, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w1, w2.meshed()); err != nil {
		return "", err
	}
	all := []derp.PeerPresentMessage{w1.meshed(), w2.meshed(), clients[0].regular(), clients[1].regular()}
	if err := expectPresent(ctx, w2, all...); err != nil {
		return "", err
	}
	third, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresentAt(ctx, third.regular(), w1, w2); err != nil {
		return "", err
	}
	clients[1].leave()
	if err := expectGoneAt(ctx, clients[1].key, w1, w2); err != nil {
		return "", err
	}
	w3, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresentAt(ctx, w3.meshed(), w1, w2); err != nil {
		return "", err
	}
	all = []derp.PeerPresentMessage{
		w1.meshed(), w2.meshed(), w3.meshed(), clients[0].regular(), third.regular(),
	}
	if err := expectPresent(ctx, w3, all...); err != nil {
		return "", err
	}
	clients[0].leave()
	if err := expectGoneAt(ctx, clients[0].key, w1, w2, w3); err != nil {
		return "", err
	}
	w2.leave()
	if err := expectGoneAt(ctx, w2.key, w1, w3); err != nil {
		return "", err
	}
	for _, w := range []*peer{w1, w3} {
		if err := w.fence(ctx, "no more"); err != nil {
			return "", err
		}
	}
	return "three watchers told alike", nil
}

// latestNews says what a watcher that took nothing for a while is told.
var latestNews bool

// meshWatchOrder: a watcher that does not read for a while is told of everything, in the order in which it
// happened, or of those who are still there.
func meshWatchOrder(ctx context.Context, r *meshRelay) (string, error) {
	slow, err := r.greet(ctx, key.NewNode(), derp.ClientInfo{MeshKey: r.meshKey}, "", "")
	if err != nil {
		return "", err
	}
	if _, err := slow.conn.Write(frame(derp.FrameWatchConns, nil)); err != nil {
		return "", err
	}
	if _, err := slow.expect(derp.FramePeerPresent); err != nil {
		return "", err
	}
	// This one reads, and so says when the relay has noticed what comes next.
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if _, err := slow.expect(derp.FramePeerPresent); err != nil {
		return "", err
	}
	for range 2 {
		if _, err := expect[derp.PeerPresentMessage](ctx, w); err != nil {
			return "", err
		}
	}
	// More than the sockets hold: the relay cannot write to it any more.
	for range 400 {
		if err := w.Send(slow.key, make([]byte, derp.MaxPacketSize)); err != nil {
			return "", err
		}
	}
	if err := w.fence(ctx, "all sent"); err != nil {
		return "", err
	}
	var want [][]byte
	const n = 20
	var clients [n]*peer
	for i := range clients {
		if clients[i], err = r.client(ctx); err != nil {
			return "", err
		}
		if err := expectPresent(ctx, w, clients[i].regular()); err != nil {
			return "", fmt.Errorf("login %d: %w", i, err)
		}
		want = append(want, presentFrame(clients[i].regular()))
		if i%2 == 1 {
			gone := clients[i/2]
			gone.leave()
			if err := expectGoneAt(ctx, gone.key, w); err != nil {
				return "", fmt.Errorf("leave %d: %w", i/2, err)
			}
			want = append(want, goneFrame(gone.key, derp.PeerGoneReasonDisconnected))
		}
	}
	if latestNews {
		want = nil
		for _, stays := range clients[n/2:] {
			want = append(want, presentFrame(stays.regular()))
		}
	}
	for i := 0; i < len(want); {
		kind, length, err := derp.ReadFrameHeader(slow.frame)
		if err != nil {
			return "", fmt.Errorf("event %d: %w", i, err)
		}
		payload := make([]byte, length)
		if _, err := io.ReadFull(slow.frame, payload); err != nil {
			return "", err
		}
		if kind == derp.FrameRecvPacket {
			continue
		}
		if got := frame(kind, payload); !bytes.Equal(got, want[i]) {
			return "", fmt.Errorf("event %d is %x, want %x", i, got, want[i])
		}
		i++
	}
	return fmt.Sprintf("%d events behind a full connection", len(want)), w.fence(ctx, "no more")
}

// meshWatchFlags: what a client is, and its app name, reaches watchers, both at once and at first.
func meshWatchFlags(ctx context.Context, r *meshRelay) (string, error) {
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, w.meshed()); err != nil {
		return "", err
	}
	all := []derp.PeerPresentMessage{w.meshed()}
	const (
		regular  = derp.PeerPresentIsRegular
		mesh     = derp.PeerPresentIsMeshPeer
		prober   = derp.PeerPresentIsProber
		notIdeal = derp.PeerPresentNotIdeal
	)
	longest := strings.Repeat("~ !", derp.MaxAppNameLen/3) + "xy"
	for _, c := range []struct {
		how   member
		flags derp.PeerPresentFlags
	}{
		{member{}, regular},
		{member{appName: "an app"}, regular},
		{member{appName: longest}, regular},
		{member{meshKey: r.meshKey}, mesh},
		{member{prober: true}, prober},
		{member{prober: true, meshKey: r.meshKey, appName: "probe"}, mesh | prober},
	} {
		p, err := r.login(ctx, c.how)
		if err != nil {
			return "", err
		}
		m := p.present(c.flags, c.how.appName)
		if err := expectPresent(ctx, w, m); err != nil {
			return "", err
		}
		all = append(all, m)
	}
	for _, c := range []struct {
		info  derp.ClientInfo
		flags derp.PeerPresentFlags
	}{
		{derp.ClientInfo{Version: derp.ProtocolVersion}, notIdeal},
		{derp.ClientInfo{MeshKey: r.meshKey, IsProber: true, AppName: "x"}, mesh | prober | notIdeal},
	} {
		p, err := r.greet(ctx, key.NewNode(), c.info, derp.IdealNodeHeader, "1a")
		if err != nil {
			return "", err
		}
		defer p.conn.Close()
		m := derp.PeerPresentMessage{
			Key: p.key, IPPort: p.address(), Flags: c.flags, AppName: c.info.AppName,
		}
		if err := expectPresent(ctx, w, m); err != nil {
			return "", err
		}
		all = append(all, m)
	}
	late, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, late, append(all, late.meshed())...); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d kinds of clients", len(all)), late.fence(ctx, "no more")
}

// meshWatchDuplicates: each connection of a key is told of, but only the last one's end. Who watches later is
// told of the key once, with the address of the connection that sent last.
func meshWatchDuplicates(ctx context.Context, r *meshRelay) (string, error) {
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
			return "", fmt.Errorf("connection %d: %w", i+1, err)
		}
	}
	if err := connections[0].fence(ctx, "active"); err != nil {
		return "", err
	}
	late, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, late.meshed()); err != nil {
		return "", err
	}
	err = expectPresent(ctx, late, w.meshed(), late.meshed(), connections[0].regular())
	if err != nil {
		return "", fmt.Errorf("later watcher: %w", err)
	}
	for _, c := range connections[:2] {
		c.leave()
		time.Sleep(pause)
		if err := w.fence(ctx, "not yet"); err != nil {
			return "", err
		}
	}
	connections[2].leave()
	if err := expectGoneAt(ctx, same.Public(), w, late); err != nil {
		return "", err
	}
	return "told of three, gone once", w.fence(ctx, "no more")
}

// meshWatchTwice: who asks again is told of all again, and of each later event once.
func meshWatchTwice(ctx context.Context, r *meshRelay) (string, error) {
	c, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, c.regular(), w.meshed()); err != nil {
		return "", err
	}
	if _, err := w.raw.Write(frame(derp.FrameWatchConns, nil)); err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, c.regular(), w.meshed()); err != nil {
		return "", fmt.Errorf("asked again: %w", err)
	}
	c.leave()
	if err := expectGoneAt(ctx, c.key, w); err != nil {
		return "", err
	}
	return "told of all again, of later events once", w.fence(ctx, "no more")
}

// meshWatchOwnKey: a connection with the relay's own key is the relay's link to itself. It is told nothing;
// others are told of it.
func meshWatchOwnKey(ctx context.Context, r *meshRelay) (string, error) {
	w, err := r.watcher(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, w.meshed()); err != nil {
		return "", err
	}
	self, err := r.login(ctx, member{key: r.private, meshKey: r.meshKey, watch: true})
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, self.meshed()); err != nil {
		return "", err
	}
	c, err := r.client(ctx)
	if err != nil {
		return "", err
	}
	if err := expectPresent(ctx, w, c.regular()); err != nil {
		return "", err
	}
	return "told nothing", self.fence(ctx, "nothing")
}
