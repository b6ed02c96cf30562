package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// A mesh peer written by hand: it sees the relay's frames and sends what a stock server sends seldom.
var meshScriptCases = []testCase{
	{"mesh-link-frames", needsServer, 15 * time.Second, relayCase(linkFrames)},
	{"mesh-link-claims", needsServer, 15 * time.Second, relayCase(linkClaims)},
}

// scriptedLink is the relay's link to a peer that the case plays.
type scriptedLink struct {
	handPeer
	frames chan wireFrame // Closed when reading ended.
}

type wireFrame struct {
	kind    derp.FrameType
	payload []byte
}

// acceptLink starts the relay with one mesh peer and takes its login by a normal start, since the certificate
// list ends without a meta certificate. It returns when the relay has asked to watch.
func acceptLink(ctx context.Context, r *meshRelay) (*scriptedLink, error) {
	p, err := newMeshPeer(r, "")
	if err != nil {
		return nil, err
	}
	listener, err := tls.Listen("tcp", p.addr, &tls.Config{Certificates: []tls.Certificate{p.cert}})
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	if err := r.start(ctx, r.keyed(), "-mesh-with="+p.entry); err != nil {
		return nil, err
	}
	conn, err := listener.Accept()
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	l := &scriptedLink{frames: make(chan wireFrame, 1000)}
	l.conn, l.frame, l.key = conn, bufio.NewReader(conn), r.private.Public()
	req, err := http.ReadRequest(l.frame)
	if err != nil {
		return nil, err
	}
	if req.Header.Get(derp.FastStartHeader) != "" {
		return nil, errors.New("a fast start without a meta certificate")
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n"+
		"Connection: Upgrade\r\n\r\n"); err != nil {
		return nil, err
	}
	greeting := p.private.Public().AppendTo([]byte(derp.Magic))
	if _, err := conn.Write(frame(derp.FrameServerKey, greeting)); err != nil {
		return nil, err
	}
	if err := l.takeLogin(p.private, r.meshKey); err != nil {
		return nil, err
	}
	info := p.private.SealTo(l.key, []byte(`{"version":2}`))
	if _, err := conn.Write(frame(derp.FrameServerInfo, info)); err != nil {
		return nil, err
	}
	watch, err := l.expect(derp.FrameWatchConns)
	if err != nil {
		return nil, err
	}
	if len(watch) != 0 {
		return nil, fmt.Errorf("WatchConns has %d bytes", len(watch))
	}
	go l.read()
	return l, nil
}

// takeLogin wants the relay's own key, proved, and a ClientInfo as derper's: with the mesh key, and no prober.
func (l *scriptedLink) takeLogin(server key.NodePrivate, meshKey key.DERPMesh) error {
	login, err := l.expect(derp.FrameClientInfo)
	if err != nil {
		return err
	}
	sealed, ok := bytes.CutPrefix(login, l.key.AppendTo(nil))
	if !ok {
		return errors.New("the link's login has another key than the relay's")
	}
	text, ok := server.OpenFrom(l.key, sealed)
	if !ok {
		return errors.New("the link's ClientInfo is not sealed by the relay for this server")
	}
	var info derp.ClientInfo
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&info); err != nil {
		return fmt.Errorf("the link's ClientInfo: %w", err)
	}
	want := derp.ClientInfo{Version: derp.ProtocolVersion, MeshKey: meshKey}
	if !info.Equal(&want) {
		return fmt.Errorf("the link's ClientInfo is not as derper's: version %d, prober %v, acks %v, app %q",
			info.Version, info.IsProber, info.CanAckPings, info.AppName)
	}
	return nil
}

func (l *scriptedLink) read() {
	defer close(l.frames)
	for {
		kind, n, err := derp.ReadFrameHeader(l.frame)
		if err != nil {
			return
		}
		payload := make([]byte, n)
		if _, err := io.ReadFull(l.frame, payload); err != nil {
			return
		}
		l.frames <- wireFrame{kind, payload}
	}
}

func (l *scriptedLink) send(kind derp.FrameType, payload []byte) error {
	_, err := l.conn.Write(frame(kind, payload))
	return err
}

// forwarded wants this ForwardPacket as the link's very next frame.
func (l *scriptedLink) forwarded(ctx context.Context, from, to key.NodePublic, packet []byte) error {
	select {
	case got, ok := <-l.frames:
		if !ok {
			return errors.New("the link ended")
		}
		want := append(to.AppendTo(from.AppendTo(nil)), packet...)
		if got.kind != derp.FrameForwardPacket || !bytes.Equal(got.payload, want) {
			return fmt.Errorf("the link's frame is %#x %.80x, want a ForwardPacket %.80x",
				byte(got.kind), got.payload, want)
		}
		return nil
	case <-ctx.Done():
		return errors.New("the link carries nothing")
	}
}

// claim tells the relay of a key in this payload and of one more, and returns once the relay knows both.
func (l *scriptedLink) claim(ctx context.Context, a *peer, payloads ...[]byte) error {
	mark := key.NewNode().Public()
	for _, payload := range append(payloads, mark.AppendTo(nil)) {
		if err := l.send(derp.FramePeerPresent, payload); err != nil {
			return err
		}
	}
	for seq := 0; ; seq++ {
		probe := []byte(fmt.Sprintf("probe %d", seq))
		if err := a.Send(mark, probe); err != nil {
			return err
		}
		for {
			got, open := wireFrame{}, true
			select {
			case got, open = <-l.frames:
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return errors.New("the relay forwards nothing to a key that its peer has")
			}
			if !open {
				return errors.New("the link ended")
			}
			if got.payload == nil {
				break
			}
			if bytes.HasSuffix(got.payload, probe) {
				return nil
			}
		}
	}
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
