package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	"tailscale.com/derp"
	"tailscale.com/derp/derphttp"
	"tailscale.com/net/netmon"
	"tailscale.com/types/key"
)

// Upstream's own watch loop against the relay. It waits 5 seconds before it dials again.
var meshLoopCases = []testCase{
	{"mesh-loop-broken-by-client", needsServer, 20 * time.Second, loopCase(brokenByClient)},
	{"mesh-loop-broken-on-the-way", needsServer, 20 * time.Second, loopCase(brokenOnTheWay)},
	{"mesh-loop-broken-by-close-peer", needsServer, 20 * time.Second, loopCase(brokenByClosePeer)},
	{"mesh-loop-broken-while-busy", needsServer, 15 * time.Second, meshCase(loopBrokenWhileBusy)},
	{"mesh-loop-own-key", needsServer, 15 * time.Second, meshCase(loopOwnKey)},
}

// loop is a stock client in its watch loop.
type loop struct {
	*derphttp.Client
	key   key.NodePublic
	proxy *cutProxy

	mu      sync.Mutex
	conn    net.Conn // The last one dialled.
	present map[key.NodePublic]bool
	broken  int // How often its connection ended.

	adding func()        // Called in the loop before a key is added, if not nil.
	ended  chan struct{} // Closed when the loop returned.
}

// startLoop lets a stock client watch the relay as derper watches its mesh peers.
func (r *meshRelay) startLoop(
	ctx context.Context, k key.NodePrivate, adding func(),
) (*loop, error) {
	proxy, err := newCutProxy(ctx, func() string { return r.addr })
	if err != nil {
		return nil, err
	}
	l := &loop{
		key: k.Public(), proxy: proxy, present: map[key.NodePublic]bool{}, adding: adding,
		ended: make(chan struct{}),
	}
	if l.Client, err = derphttp.NewClient(k, r.url, r.logf, netmon.NewStatic()); err != nil {
		return nil, err
	}
	l.MeshKey, l.WatchConnectionChanges = r.meshKey, true
	l.TLSConfig = &tls.Config{RootCAs: r.ca.pool}
	l.SetURLDialer(func(ctx context.Context, network, _ string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, proxy.addr)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conn = conn
		return conn, err
	})
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		defer close(l.ended)
		l.RunWatchConnectionLoop(ctx, l.key, r.logf, l.add, l.remove, l.broke)
	}()
	return l, nil
}

func (l *loop) add(m derp.PeerPresentMessage) {
	if l.adding != nil {
		l.adding()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.present[m.Key] = true
}

func (l *loop) remove(m derp.PeerGoneMessage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.present, m.Peer)
}

func (l *loop) broke(error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken++
}

// cut ends the last connection on the client's side.
func (l *loop) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn.Close()
}

// breaks is how often the loop said that its connection ended.
func (l *loop) breaks() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// await returns once exactly these keys are present.
func (l *loop) await(ctx context.Context, want ...key.NodePublic) error {
	for {
		l.mu.Lock()
		got := len(l.present)
		missing := 0
		for _, k := range want {
			if !l.present[k] {
				missing++
			}
		}
		l.mu.Unlock()
		if missing == 0 && got == len(want) {
			return nil
		}
		select {
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return fmt.Errorf("the loop has %d keys present, %d of %d are missing", got, missing, len(want))
		}
	}
}

// loopCase breaks the connection of a watch loop twice. While it is broken one client leaves and another
// comes; afterwards the loop knows exactly who is there.
func loopCase(
	breakIt func(context.Context, *meshRelay, *loop) error,
) func(context.Context, *target) (string, error) {
	return meshCase(func(ctx context.Context, r *meshRelay) (string, error) {
		clients, err := r.clients(ctx, 2)
		if err != nil {
			return "", err
		}
		l, err := r.startLoop(ctx, key.NewNode(), nil)
		if err != nil {
			return "", err
		}
		const rounds = 2
		for round := range rounds {
			stays, leaves := clients[round], clients[round+1]
			if err := l.await(ctx, l.key, stays.key, leaves.key); err != nil {
				return "", fmt.Errorf("round %d: %w", round+1, err)
			}
			if err := breakIt(ctx, r, l); err != nil {
				return "", err
			}
			// The loop forgets all at once, and dials again only later.
			if err := l.await(ctx); err != nil {
				return "", fmt.Errorf("broken: %w", err)
			}
			if n := l.breaks(); n != round+1 {
				return "", fmt.Errorf("broken %d times, want %d", n, round+1)
			}
			leaves.leave()
			next, err := r.client(ctx)
			if err != nil {
				return "", err
			}
			// Who stays this time is who leaves the next.
			clients = append(clients[:round+1], stays, next)
			if err := l.await(ctx, l.key, stays.key, next.key); err != nil {
				return "", fmt.Errorf("after break %d: %w", round+1, err)
			}
		}
		return fmt.Sprintf("whole again %d times", rounds), nil
	})
}

func brokenByClient(_ context.Context, _ *meshRelay, l *loop) error {
	l.cut()
	return nil
}

func brokenOnTheWay(_ context.Context, _ *meshRelay, l *loop) error {
	l.proxy.cut()
	return nil
}

// brokenByClosePeer: another mesh peer asks for it. It leaves before the loop is back.
func brokenByClosePeer(ctx context.Context, r *meshRelay, l *loop) error {
	other, err := r.forwarder(ctx)
	if err != nil {
		return err
	}
	defer other.leave()
	if err := other.ClosePeer(l.key); err != nil {
		return err
	}
	return other.fence(ctx, "closed")
}

// loopBrokenWhileBusy: the connection breaks, and a packet to forward makes a new one, while the loop does
// not read. It notices when it reads on, and knows exactly who is there, without its pause.
func loopBrokenWhileBusy(ctx context.Context, r *meshRelay) (string, error) {
	busy, goOn := make(chan struct{}), make(chan struct{})
	step := func(c chan struct{}) error {
		select {
		case c <- struct{}{}:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	l, err := r.startLoop(ctx, key.NewNode(), func() {
		if step(busy) == nil {
			step(goOn)
		}
	})
	if err != nil {
		return "", err
	}
	const rounds = 5
	for round := range rounds {
		select {
		case <-busy:
		case <-ctx.Done():
			return "", fmt.Errorf("round %d: told of nobody", round+1)
		}
		l.cut()
		// The first finds the connection ended.
		nobody := key.NewNode().Public()
		for l.ForwardPacket(nobody, nobody, derp.LoanBytes([]byte("makes a connection"))) != nil {
			if ctx.Err() != nil {
				return "", fmt.Errorf("round %d: %w", round+1, ctx.Err())
			}
		}
		select {
		case <-goOn:
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	select {
	case <-busy:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	select {
	case <-goOn:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if n := l.breaks(); n != 0 {
		return "", fmt.Errorf("the loop itself lost %d connections", n)
	}
	return fmt.Sprintf("whole again %d times", rounds), l.await(ctx, l.key)
}

// loopOwnKey: the loop of a relay ends by itself at that relay, which it knows by the key.
func loopOwnKey(ctx context.Context, r *meshRelay) (string, error) {
	self, err := r.startLoop(ctx, r.private, nil)
	if err != nil {
		return "", err
	}
	select {
	case <-self.ended:
	case <-ctx.Done():
		return "", fmt.Errorf("the loop did not see that it is at its own server")
	}
	other, err := r.startLoop(ctx, key.NewNode(), nil)
	if err != nil {
		return "", err
	}
	// The first client is still connected: upstream's loop returns without closing it.
	return "ends at its own server", other.await(ctx, other.key, self.key)
}
