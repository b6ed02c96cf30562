package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"time"

	"tailscale.com/derp"
	"tailscale.com/types/key"
)

// Each way to start a connection: that it was that way, and that a ping and a packet to oneself come back.
var loginCases = []testCase{
	{"derp-fast-start", needsURL, 15 * time.Second, fastStartCase},
	{"derp-fast-start-bytes", needsURL, 15 * time.Second, fastStartBytes},
	{"derp-normal-start", needsURL, 15 * time.Second, normalStart},
	{"derp-tls12", needsURL, 15 * time.Second, tls12},
	{"derp-plain", needsPlain, 15 * time.Second, plain},
	{"derp-cert-pin", needsURL, 15 * time.Second, certPin},
	{"derp-server-info-first", needsURL, 30 * time.Second, serverInfoFirst},
}

// useOnce checks a fresh connection: ServerInfo, ping, a packet to oneself.
func useOnce(ctx context.Context, p *peer) error {
	if _, err := expect[derp.ServerInfoMessage](ctx, p); err != nil {
		return err
	}
	if err := p.fence(ctx, "login"); err != nil {
		return err
	}
	packet := []byte("a packet to oneself")
	if err := p.Send(p.key, packet); err != nil {
		return err
	}
	return expectPacket(ctx, p, p.key, packet)
}

// fastStartCase: when Connect returns, the client has read one flight, the handshake's: had it waited for a
// response it would have read a second one after its request.
func fastStartCase(ctx context.Context, t *target) (string, error) {
	_, meta, err := serverCertificates(ctx, hostOf(t.url))
	if err != nil {
		return "", err
	}
	p, err := newPeer(ctx, t, fastStart, key.NewNode())
	if err != nil {
		return "", err
	}
	defer p.leave()
	if err := p.Connect(ctx); err != nil {
		return "", err
	}
	turns := p.tap.turnsSoFar()
	state, ok := p.TLSConnectionState()
	if !ok || state.Version != tls.VersionTLS13 {
		return "", fmt.Errorf("not TLS 1.3: %+v", state)
	}
	want := "WRW"
	if state.HelloRetryRequest {
		want = "WRWRW"
	}
	if turns != want {
		return "", fmt.Errorf("the client's turns were %s, want %s: it waited for an answer", turns, want)
	}
	if p.ServerPublicKey() != meta {
		return "", fmt.Errorf("client has server key %v, the certificate says %v", p.ServerPublicKey(), meta)
	}
	if err := p.login(ctx); err != nil {
		return "", err
	}
	return "TLS 1.3, turns " + turns, useOnce(ctx, p)
}

// fastStartBytes: request and ClientInfo in one write; the server's first bytes are the ServerKey frame and
// nothing of HTTP.
func fastStartBytes(ctx context.Context, t *target) (string, error) {
	_, meta, err := serverCertificates(ctx, hostOf(t.url))
	if err != nil {
		return "", err
	}
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}}
	conn, err := dialer.DialContext(ctx, "tcp", hostOf(t.url))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	tap := &tapConn{Conn: conn, keep: true}
	io1 := bufio.NewReadWriter(bufio.NewReader(tap), bufio.NewWriter(tap))
	req, err := http.NewRequest("GET", t.url, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Upgrade", "DERP")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set(derp.FastStartHeader, "1")
	if err := req.Write(io1); err != nil {
		return "", err
	}
	client, err := derp.NewClient(key.NewNode(), tap, io1, t.logf, derp.ServerPublicKey(meta))
	if err != nil {
		return "", err
	}
	first, err := client.Recv()
	if err != nil {
		return "", err
	}
	if _, ok := first.(derp.ServerInfoMessage); !ok {
		return "", fmt.Errorf("first message is %T, want ServerInfo", first)
	}
	return "ServerKey is the first thing sent", checkGreeting(tap.readSoFar(), meta)
}

// checkGreeting fails unless stream begins with a ServerKey frame for this key and goes on with ServerInfo.
func checkGreeting(stream []byte, server key.NodePublic) error {
	want := []byte{byte(derp.FrameServerKey), 0, 0, 0, 40}
	want = append(want, derp.Magic...)
	want = server.AppendTo(want)
	rest, ok := bytes.CutPrefix(stream, want)
	if !ok {
		return fmt.Errorf("server's first bytes are %.64q, want the ServerKey frame %q", stream, want)
	}
	if len(rest) == 0 || rest[0] != byte(derp.FrameServerInfo) {
		return fmt.Errorf("after ServerKey come %.16x, want a ServerInfo frame", rest)
	}
	return nil
}

func normalStart(ctx context.Context, t *target) (string, error) {
	_, meta, err := serverCertificates(ctx, hostOf(t.url))
	if err != nil {
		return "", err
	}
	p, err := connect(ctx, t, overTLS13)
	if err != nil {
		return "", err
	}
	defer p.leave()
	if err := useOnce(ctx, p); err != nil {
		return "", err
	}
	if p.ServerPublicKey() != meta {
		return "", fmt.Errorf("ServerKey says %v, the meta certificate %v", p.ServerPublicKey(), meta)
	}
	stream := bufio.NewReader(bytes.NewReader(p.tap.readSoFar()))
	resp, err := http.ReadResponse(stream, nil)
	if err != nil {
		return "", err
	}
	for name, want := range map[string]string{
		"Upgrade": "DERP", "Connection": "Upgrade",
		"Derp-Version": "2", "Derp-Public-Key": meta.UntypedHexString(),
	} {
		if got := resp.Header.Get(name); got != want {
			return "", fmt.Errorf("response header %s is %q, want %q", name, got, want)
		}
	}
	if len(resp.Header) != 4 {
		return "", fmt.Errorf("response has other headers than upstream's four: %v", resp.Header)
	}
	rest, err := io.ReadAll(stream)
	if err != nil {
		return "", err
	}
	return resp.Status + " over TLS 1.3", checkGreeting(rest, meta)
}

func tls12(ctx context.Context, t *target) (string, error) {
	p, err := newPeer(ctx, t, overTLS12, key.NewNode())
	if err != nil {
		return "", err
	}
	if err := p.login(ctx); err != nil {
		return "", err
	}
	defer p.leave()
	state, ok := p.TLSConnectionState()
	if !ok || state.Version != tls.VersionTLS12 {
		return "", fmt.Errorf("not TLS 1.2: %+v", state)
	}
	return tls.CipherSuiteName(state.CipherSuite), useOnce(ctx, p)
}

func plain(ctx context.Context, t *target) (string, error) {
	p, err := connect(ctx, t, plainTCP)
	if err != nil {
		return "", err
	}
	defer p.leave()
	if _, secure := p.TLSConnectionState(); secure {
		return "", fmt.Errorf("the connection is TLS")
	}
	return "no TLS", useOnce(ctx, p)
}

// certPin: the pin's check wants exactly one certificate beside the meta certificate, in date and with that
// hash.
func certPin(ctx context.Context, t *target) (string, error) {
	p, err := connect(ctx, t, pinnedRegion)
	if err != nil {
		return "", err
	}
	defer p.leave()
	state, ok := p.TLSConnectionState()
	if !ok {
		return "", fmt.Errorf("no TLS")
	}
	return fmt.Sprintf("%d certificates", len(state.PeerCertificates)), useOnce(ctx, p)
}

// serverInfoFirst: the key is in the server's table before ServerInfo is written, so a packet may already
// be queued for it then; it must not overtake ServerInfo. A sender that never stops makes that race happen.
func serverInfoFirst(ctx context.Context, t *target) (string, error) {
	sender, err := loggedIn(ctx, t, fastStart)
	if err != nil {
		return "", err
	}
	defer sender.leave()
	const logins = 20
	early := 0
	for range logins {
		k := key.NewNode()
		flood, stop := context.WithCancel(ctx)
		flooding := make(chan error, 1)
		go func() {
			for flood.Err() == nil {
				if err := sender.Send(k.Public(), []byte("early bird")); err != nil {
					flooding <- err
					return
				}
			}
			flooding <- nil
		}()
		heard, err := loginUnderFire(ctx, t, k)
		stop()
		if err := <-flooding; err != nil {
			return "", err
		}
		if err != nil {
			return "", err
		}
		if heard {
			early++
		}
	}
	if early == 0 {
		return "", fmt.Errorf("no login met a packet: nothing was tested")
	}
	return fmt.Sprintf("%d logins under fire", logins), nil
}

func loginUnderFire(ctx context.Context, t *target, k key.NodePrivate) (heard bool, err error) {
	p, err := connectKey(ctx, t, overTLS13, k)
	if err != nil {
		return false, err
	}
	defer p.leave()
	if _, err := expect[derp.ServerInfoMessage](ctx, p); err != nil {
		return false, err
	}
	_, err = expect[derp.ReceivedPacket](ctx, p)
	return err == nil, err
}
