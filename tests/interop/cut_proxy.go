package main

import (
	"context"
	"io"
	"net"
	"sync"
)

// cutProxy passes TCP connections on until they are cut.
type cutProxy struct {
	addr string
	mu   sync.Mutex
	open []net.Conn
	made int // Connections that reached the other side.
}

// newCutProxy asks where to pass each connection on to: a relay's port is known only once it was launched.
func newCutProxy(ctx context.Context, to func() string) (*cutProxy, error) {
	listener, err := net.Listen("tcp", relayHost+":0")
	if err != nil {
		return nil, err
	}
	p := &cutProxy{addr: listener.Addr().String()}
	context.AfterFunc(ctx, func() {
		listener.Close()
		p.cut()
	})
	go func() {
		for {
			near, err := listener.Accept()
			if err != nil {
				return
			}
			go p.pass(near, to())
		}
	}()
	return p, nil
}

func (p *cutProxy) pass(near net.Conn, to string) {
	defer near.Close()
	far, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer far.Close()
	p.mu.Lock()
	p.open = append(p.open, near, far)
	p.made++
	p.mu.Unlock()
	go func() {
		io.Copy(near, far)
		near.Close()
	}()
	io.Copy(far, near)
}

// passed is how many connections reached the other side so far.
func (p *cutProxy) passed() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

// cut resets all connections at both ends, as a box on the way does that forgot them.
func (p *cutProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.open {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	p.open = nil
}
