package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"go4.org/mem"
	"tailscale.com/disco"
	"tailscale.com/net/packet"
	"tailscale.com/net/udprelay/endpoint"
	"tailscale.com/types/key"
)

// quiet is how long a socket is listened to before it counts as silent. It only ever confirms: each refusal
// is first shown by a later packet that must have been served after it.
const quiet = 100 * time.Millisecond

// handshakeBytes is the length of the UDP payload of each of the three bind messages: equal, so that the
// relay does not amplify.
const handshakeBytes = 160

// leg is one client of a session: a socket and a disco key.
type leg struct {
	vni    uint32
	local  key.DiscoPrivate
	remote key.DiscoPublic // the other client
	server key.DiscoPublic
	conn   *net.UDPConn // connected: packets from elsewhere than the relay's address do not arrive
	// generation of the leg's last handshake; shared by all sockets of one client, as it must never repeat.
	generation *atomic.Uint32
}

// session is an allocation and the keys of its two clients, in the relay's own order: ascending.
type session struct {
	endpoint.ServerEndpoint
	keys        [2]key.DiscoPrivate
	generations [2]atomic.Uint32
}

func newSession(ctx context.Context, t *target) (*session, error) {
	s := &session{keys: [2]key.DiscoPrivate{key.NewDisco(), key.NewDisco()}}
	if s.keys[0].Public().Compare(s.keys[1].Public()) > 0 {
		s.keys[0], s.keys[1] = s.keys[1], s.keys[0]
	}
	var err error
	s.ServerEndpoint, err = allocate(ctx, t, s.keys[0].Public(), s.keys[1].Public())
	return s, err
}

// leg opens a new socket of client i towards one of the relay's addresses. It is closed when ctx ends.
func (s *session) leg(ctx context.Context, i int, relay netip.AddrPort) (*leg, error) {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		return nil, err
	}
	conn.SetReadBuffer(4 << 20)
	context.AfterFunc(ctx, func() { conn.Close() })
	return &leg{
		vni: s.VNI, local: s.keys[i], remote: s.keys[1-i].Public(), server: s.ServerDisco,
		conn: conn, generation: &s.generations[i],
	}, nil
}

func (l *leg) String() string { return l.conn.LocalAddr().String() }

func (l *leg) geneve(control bool, protocol uint16) []byte {
	header := packet.GeneveHeader{Control: control, Protocol: protocol}
	header.VNI.Set(l.vni)
	b := make([]byte, packet.GeneveFixedHeaderLength)
	if err := header.Encode(b); err != nil {
		panic(err)
	}
	return b
}

// data is a whole UDP payload of the session; protocol says WireGuard or disco between the clients.
func (l *leg) data(protocol uint16, payload []byte) []byte {
	return append(l.geneve(false, protocol), payload...)
}

func (l *leg) send(b []byte) error {
	_, err := l.conn.Write(b)
	return err
}

func (l *leg) sendControl(msg disco.Message) error {
	b := append(l.geneve(true, packet.GeneveProtocolDisco), disco.Magic...)
	b = l.local.Public().AppendTo(b)
	b = append(b, l.local.Shared(l.server).Seal(msg.AppendMarshal(nil))...)
	return l.send(b)
}

// receive is the next datagram, or ctx's end.
func (l *leg) receive(ctx context.Context) ([]byte, error) {
	deadline, _ := ctx.Deadline()
	return l.receiveUntil(deadline)
}

func (l *leg) receiveUntil(deadline time.Time) ([]byte, error) {
	l.conn.SetReadDeadline(deadline)
	b := make([]byte, 1<<16)
	n, err := l.conn.Read(b)
	return b[:n], err
}

// expectData fails unless the very next datagram is these bytes, Geneve header and all.
func (l *leg) expectData(ctx context.Context, want []byte) error {
	got, err := l.receive(ctx)
	if err != nil {
		return fmt.Errorf("%v got nothing: %w", l, err)
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%v got %d bytes %.48x, want %d bytes %.48x", l, len(got), got, len(want), want)
	}
	return nil
}

// expectQuiet fails if anything comes within a short while.
func (l *leg) expectQuiet() error {
	got, err := l.receiveUntil(time.Now().Add(quiet))
	if err == nil {
		return fmt.Errorf("%v got %d bytes %.48x, want nothing", l, len(got), got)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// common is what all three messages of the leg's handshake number generation say.
func (l *leg) common(generation uint32) disco.BindUDPRelayEndpointCommon {
	return disco.BindUDPRelayEndpointCommon{VNI: l.vni, Generation: generation, RemoteKey: l.remote}
}

// startBind sends Bind with a fresh generation and wants the challenge for it as the very next datagram:
// anything this socket sent before was served before, and drew no answer.
func (l *leg) startBind(ctx context.Context) (*disco.BindUDPRelayEndpointChallenge, error) {
	bind := &disco.BindUDPRelayEndpoint{BindUDPRelayEndpointCommon: l.common(l.generation.Add(1))}
	if err := l.sendControl(bind); err != nil {
		return nil, err
	}
	msg, err := l.receiveControl(ctx)
	if err != nil {
		return nil, err
	}
	challenge, ok := msg.(*disco.BindUDPRelayEndpointChallenge)
	if !ok {
		return nil, fmt.Errorf("%v got %T, want a challenge", l, msg)
	}
	want := bind.BindUDPRelayEndpointCommon
	want.Challenge = challenge.Challenge
	if challenge.BindUDPRelayEndpointCommon != want {
		return nil, fmt.Errorf("%v: challenge is %+v, want %+v", l, challenge, want)
	}
	return challenge, nil
}

func (l *leg) receiveControl(ctx context.Context) (disco.Message, error) {
	b, err := l.receive(ctx)
	if err != nil {
		return nil, fmt.Errorf("%v: no answer to Bind: %w", l, err)
	}
	if len(b) != handshakeBytes {
		return nil, fmt.Errorf("%v got %d bytes %.48x, want a handshake of %d", l, len(b), b, handshakeBytes)
	}
	if want := l.geneve(true, packet.GeneveProtocolDisco); !bytes.HasPrefix(b, want) {
		return nil, fmt.Errorf("%v: Geneve header is %x, want %x", l, b[:8], want)
	}
	sealed := b[packet.GeneveFixedHeaderLength:]
	source, ok := disco.Source(sealed)
	if !ok || key.DiscoPublicFromRaw32(mem.B(source)) != l.server {
		return nil, fmt.Errorf("%v: not a disco message of the relay's: %.48x", l, sealed)
	}
	text, ok := l.local.Shared(l.server).Open(sealed[len(disco.Magic)+key.DiscoPublicRawLen:])
	if !ok {
		return nil, fmt.Errorf("%v: the relay's box does not open", l)
	}
	return disco.Parse(text)
}

func (l *leg) answer(common disco.BindUDPRelayEndpointCommon) error {
	return l.sendControl(&disco.BindUDPRelayEndpointAnswer{BindUDPRelayEndpointCommon: common})
}

// bind does the whole handshake. An answer draws no reply; a further Bind does, and it is served after the
// answer.
func (l *leg) bind(ctx context.Context) error {
	challenge, err := l.startBind(ctx)
	if err != nil {
		return err
	}
	if err := l.answer(challenge.BindUDPRelayEndpointCommon); err != nil {
		return err
	}
	return l.fence(ctx)
}

// fence returns when the relay has served all that this socket sent before. Binds alone change no binding.
func (l *leg) fence(ctx context.Context) error {
	_, err := l.startBind(ctx)
	return err
}
