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

// takeLogin wants the relay's own key, proved, and a ClientInfo as derper's: with the mesh key, no prober.
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
