package main

import (
	"context"
	"fmt"
	"time"

	"tailscale.com/net/packet"
)

// What ends a session, asked of a relay with lifetimes of seconds. A session is gone when a Bind for its VNI
// draws no challenge, and the same pair gets a session with a higher LamportID.
var udpEndCases = []testCase{
	{"udp-lifetimes-told", needsShort, 15 * time.Second, lifetimesTold},
	{"udp-end-unbound", needsShort, 60 * time.Second, endCase(nil)},
	{"udp-end-half-bound", needsShort, 60 * time.Second, endCase([]int{0})},
	{"udp-end-other-half-bound", needsShort, 60 * time.Second, endCase([]int{1})},
	{"udp-end-first-silent", needsShort, 60 * time.Second, silentCase(0)},
	{"udp-end-second-silent", needsShort, 60 * time.Second, silentCase(1)},
	{"udp-end-never-while-both-speak", needsShort, 60 * time.Second, bothSpeak},
}

// sweep is how late a relay may notice the end: upstream looks once per bind lifetime, relayd every 5 s.
const sweep = 8 * time.Second

func needsShort(t *target) (string, string) { return "-short-socket", t.shortSocket }

// short is the target whose sessions live for seconds.
func (t *target) short() *target { return &target{adminSocket: t.shortSocket, logf: t.logf} }

func lifetimesTold(ctx context.Context, t *target) (string, error) {
	s, err := newSession(ctx, t.short())
	if err != nil {
		return "", err
	}
	got := [2]time.Duration{s.BindLifetime.Duration, s.SteadyStateLifetime.Duration}
	if want := [2]time.Duration{t.shortBind, t.shortSteady}; got != want {
		return "", fmt.Errorf("lifetimes are %v, want %v", got, want)
	}
	return fmt.Sprintf("%v", got), nil
}

// endCase: a session of which only these legs are bound, or none, ends after the bind lifetime and not in
// its first half.
func endCase(bound []int) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		start := time.Now()
		s, err := newSession(ctx, t.short())
		if err != nil {
			return "", err
		}
		a, b, err := s.legs(ctx, anyAddress, anyAddress)
		if err != nil {
			return "", err
		}
		legs := []*leg{a, b}
		for _, i := range bound {
			if err := legs[i].bind(ctx); err != nil {
				return "", err
			}
		}
		sleep(ctx, t.shortBind/2-time.Since(start))
		if err := a.fence(ctx); err != nil {
			return "", fmt.Errorf("gone before half of its time: %w", err)
		}
		took, err := gone(ctx, t, s, a, start.Add(t.shortBind+sweep))
		return fmt.Sprintf("gone after %v of %v", took.Sub(start).Round(time.Millisecond), t.shortBind), err
	}
}

// silentCase: a bound session ends when one of its clients has said nothing for the steady lifetime, though
// the other speaks on.
func silentCase(silent int) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		s, a, b, err := boundSession(ctx, t.short(), anyAddress, anyAddress)
		if err != nil {
			return "", err
		}
		start := time.Now()
		speaker := []*leg{b, a}[silent]
		speaking, stop := context.WithCancel(ctx)
		go speak(speaking, speaker)
		sleep(ctx, t.shortSteady/2)
		if again, err := allocate(ctx, t.short(), s.keys[0].Public(), s.keys[1].Public()); err != nil {
			stop()
			return "", err
		} else if again.LamportID != s.LamportID {
			stop()
			return "", fmt.Errorf("gone before half of its time")
		}
		// The probe of the end is a Bind, which is no sign of life for either relay.
		took, err := gone(ctx, t, s, speaker, start.Add(t.shortSteady+sweep))
		stop()
		return fmt.Sprintf("gone after %v of %v", took.Sub(start).Round(time.Millisecond), t.shortSteady), err
	}
}

// bothSpeak: a session lives on while both clients speak, for longer than any lifetime and a sweep.
func bothSpeak(ctx context.Context, t *target) (string, error) {
	s, a, b, err := boundSession(ctx, t.short(), anyAddress, anyAddress)
	if err != nil {
		return "", err
	}
	until := time.Now().Add(t.shortBind + t.shortSteady + sweep)
	packets := 0
	for ; time.Now().Before(until); packets += 2 {
		if err := exchange(ctx, a, b, "a sign of life"); err != nil {
			return "", fmt.Errorf("after %d packets: %w", packets, err)
		}
		sleep(ctx, t.shortSteady/10)
	}
	again, err := allocate(ctx, t.short(), s.keys[0].Public(), s.keys[1].Public())
	if err == nil && again.LamportID != s.LamportID {
		err = fmt.Errorf("LamportID went from %d to %d", s.LamportID, again.LamportID)
	}
	return fmt.Sprintf("%d packets", packets), err
}

// gone waits until a Bind for the session draws nothing, and then wants a new session for the pair.
func gone(ctx context.Context, t *target, s *session, from *leg, latest time.Time) (time.Time, error) {
	for {
		_, err := from.challengeWithin(400 * time.Millisecond)
		if err != nil {
			break
		}
		if time.Now().After(latest) {
			return time.Time{}, fmt.Errorf("still there")
		}
		sleep(ctx, 100*time.Millisecond)
	}
	at := time.Now()
	again, err := allocate(ctx, t.short(), s.keys[0].Public(), s.keys[1].Public())
	switch {
	case err != nil:
		return at, err
	case again.LamportID <= s.LamportID:
		return at, fmt.Errorf("the pair has LamportID %d again, after %d", again.LamportID, s.LamportID)
	}
	return at, nil
}

// challengeWithin sends a Bind and waits that long for its challenge; other datagrams are passed over.
func (l *leg) challengeWithin(wait time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	challenge, err := l.startBind(ctx)
	if err != nil {
		return nil, err
	}
	return challenge.Challenge[:], nil
}

// speak sends data until ctx ends.
func speak(ctx context.Context, l *leg) {
	for ctx.Err() == nil {
		l.send(l.data(packet.GeneveProtocolWireGuard, []byte("still here")))
		sleep(ctx, 200*time.Millisecond)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(max(d, 0)):
	case <-ctx.Done():
	}
}
