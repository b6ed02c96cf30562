// Package lookup measures upstream's client map where its own benchmark does not look: with as many keys as a
// large relay has clients, asked for in random order while clients come and go.
//
// The map and the way a packet reads it are those of derp/derpserver in release 1.104.5 (Server.clients,
// lookupDest): a hash trie of node key to client set, the set's active client behind an atomic pointer, the
// server's mutex for writers and for readers that miss.
package lookup

import (
	"encoding/binary"
	"flag"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go4org/hashtriemap"
	"go4.org/mem"
	"tailscale.com/types/key"
)

var (
	clients = flag.Uint64("clients", 100_000, "keys logged in")
	churn   = flag.Uint64("churn", 2_000, "clients that leave, and as many that come back, each second")
)

// client is as large as upstream's sclient, with the key where that has it.
type client struct {
	_   [32]byte
	key key.NodePublic
	_   [456]byte
}

type clientSet struct {
	active atomic.Pointer[client]
	dup    *struct{}
}

type server struct {
	mu      sync.Mutex
	clients hashtriemap.HashTrieMap[key.NodePublic, *clientSet]
}

func (s *server) login(k key.NodePublic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := &clientSet{}
	set.active.Store(&client{key: k})
	s.clients.Store(k, set)
}

func (s *server) leave(k key.NodePublic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if set, ok := s.clients.Load(k); ok {
		set.active.Store(nil)
		s.clients.CompareAndDelete(k, set)
	}
}

func (s *server) lookup(k key.NodePublic) *client {
	if set, ok := s.clients.Load(k); ok {
		if c := set.active.Load(); c != nil {
			return c
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if set, ok := s.clients.Load(k); ok {
		return set.active.Load()
	}
	return nil
}

// nthKey computes a key from its number, so that only the look-up touches memory. The Rust side does the
// same.
func nthKey(n uint64) key.NodePublic {
	var raw [32]byte
	for word := range 4 {
		binary.LittleEndian.PutUint64(raw[8*word:], mix(4*n+uint64(word)))
	}
	return key.NodePublicFromRaw32(mem.B(raw[:]))
}

// mix is the output function of SplitMix64.
func mix(n uint64) uint64 {
	z := (n + 1) * 0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// random is a xorshift generator.
type random uint64

func (r *random) below(n uint64) uint64 {
	x := uint64(*r)
	x ^= x << 13
	x ^= x >> 7
	x ^= x << 17
	*r = random(x)
	return (x >> 32) * n >> 32
}

// comeAndGo lets clients leave and come back a millisecond later, until stop is closed.
func (s *server) comeAndGo(stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	seed := random(mix(0))
	var away []uint64
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for start, gone := time.Now(), uint64(0); ; {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for _, n := range away {
			s.login(nthKey(n))
		}
		away = away[:0]
		for due := uint64(time.Since(start).Seconds() * float64(*churn)); gone < due; gone++ {
			n := seed.below(*clients)
			s.leave(nthKey(n))
			away = append(away, n)
		}
	}
}

// cpuTime is the process's processor time so far; it disturbs a comparison less than the wall clock when the
// machine has other work.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func BenchmarkLookupMany(b *testing.B) {
	s := &server{}
	for n := range *clients {
		s.login(nthKey(n))
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go s.comeAndGo(stop, stopped)
	var found, seeds atomic.Uint64
	b.ReportAllocs()
	b.SetParallelism(32)
	b.ResetTimer()
	before := cpuTime()
	b.RunParallel(func(pb *testing.PB) {
		random := random(mix(seeds.Add(1)))
		hits := uint64(0)
		for pb.Next() {
			k := nthKey(random.below(*clients))
			// A packet's next step would be into the client that was found.
			if c := s.lookup(k); c != nil && c.key == k {
				hits++
			}
		}
		found.Add(hits)
	})
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
	close(stop)
	<-stopped
	if found.Load() < uint64(b.N)*9/10 {
		b.Fatalf("only %d of %d look-ups found their client", found.Load(), b.N)
	}
}
