package main

import (
	"bytes"
	"net"
	"sync"
)

// tapConn watches one connection: it notes the direction of every call that moved bytes and, if asked,
// keeps what was read. Under TLS it sees records; put over a tls.Conn it sees HTTP and DERP frames.
type tapConn struct {
	net.Conn

	mu    sync.Mutex
	turns []byte // 'W' and 'R', a run of the same direction noted once
	keep  bool
	read  bytes.Buffer
}

func (c *tapConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.note('R')
		c.mu.Lock()
		if c.keep {
			c.read.Write(b[:n])
		}
		c.mu.Unlock()
	}
	return n, err
}

func (c *tapConn) Write(b []byte) (int, error) {
	c.note('W')
	return c.Conn.Write(b)
}

func (c *tapConn) note(turn byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.turns); n == 0 || c.turns[n-1] != turn {
		c.turns = append(c.turns, turn)
	}
}

// turnsSoFar is the alternation of writes and reads up to now, as in "WRW".
func (c *tapConn) turnsSoFar() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.turns)
}

// readSoFar is a copy of all that was read up to now.
func (c *tapConn) readSoFar() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.read.Bytes())
}
