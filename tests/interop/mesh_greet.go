package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"

	"go4.org/mem"
	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// handPeer is a connection whose login was written by hand, because no stock client says the same.
type handPeer struct {
	conn  net.Conn
	frame *bufio.Reader
	key   key.NodePublic
}

// greet logs in with this ClientInfo, and with one more request header if its name is not empty.
func (r *meshRelay) greet(
	ctx context.Context, k key.NodePrivate, info derp.ClientInfo, header, value string,
) (*handPeer, error) {
	text, err := json.Marshal(info)
	if err != nil {
		return nil, err
	}
	return r.greetJSON(ctx, k, string(text), header, value)
}

// greetJSON is greet with the JSON as it is given. It fails if the relay sends no ServerInfo.
func (r *meshRelay) greetJSON(
	ctx context.Context, k key.NodePrivate, info, header, value string,
) (_ *handPeer, err error) {
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	conn, err := dialer.DialContext(ctx, "tcp", r.addr)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	req, err := http.NewRequest("GET", r.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Upgrade", "DERP")
	req.Header.Set("Connection", "Upgrade")
	if header != "" {
		req.Header.Set(header, value)
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	p := &handPeer{conn: conn, frame: bufio.NewReader(conn), key: k.Public()}
	resp, err := http.ReadResponse(p.frame, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	greeting, err := p.expect(derp.FrameServerKey)
	if err != nil {
		return nil, err
	}
	server := key.NodePublicFromRaw32(mem.B(bytes.TrimPrefix(greeting, []byte(derp.Magic))))
	sealed := append(p.key.AppendTo(nil), k.SealTo(server, []byte(info))...)
	if _, err := conn.Write(frame(derp.FrameClientInfo, sealed)); err != nil {
		return nil, err
	}
	_, err = p.expect(derp.FrameServerInfo)
	return p, err
}

// expect reads one frame, which must be of this type.
func (p *handPeer) expect(want derp.FrameType) ([]byte, error) {
	kind, n, err := derp.ReadFrameHeader(p.frame)
	if err != nil {
		return nil, fmt.Errorf("waiting for frame %#x: %w", byte(want), err)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(p.frame, payload); err != nil {
		return nil, err
	}
	if kind != want {
		return nil, fmt.Errorf("got frame %#x %x, want %#x", byte(kind), payload, byte(want))
	}
	return payload, nil
}

// fence is a ping and its pong, which must come next.
func (p *handPeer) fence() error {
	if _, err := p.conn.Write(frame(derp.FramePing, []byte("by hand."))); err != nil {
		return err
	}
	_, err := p.expect(derp.FramePong)
	return err
}

func (p *handPeer) address() netip.AddrPort {
	at, err := netip.ParseAddrPort(p.conn.LocalAddr().String())
	if err != nil {
		return netip.AddrPort{}
	}
	return at
}
