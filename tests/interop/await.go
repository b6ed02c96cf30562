package main

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"time"
)

// retryEvery is the pause between attempts to reach a relay that is still starting.
const retryEvery = 20 * time.Millisecond

// await returns the exit status 0 once every service of the target that was given answers: for whoever has
// just started one.
func await(t *target, limit time.Duration) (status int) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for _, service := range []struct {
		name string
		at   string
		try  func() error
	}{
		{"-url", t.url, func() error { return reach(ctx, "tcp", hostOf(t.url)) }},
		{"-plain-url", t.plainURL, func() error { return reach(ctx, "tcp", hostOf(t.plainURL)) }},
		{"-http-url", t.httpURL, func() error { return reach(ctx, "tcp", hostOf(t.httpURL)) }},
		{"-admin-socket", t.adminSocket, func() error { return reach(ctx, "unix", t.adminSocket) }},
		{"-short-socket", t.shortSocket, func() error { return reach(ctx, "unix", t.shortSocket) }},
		{"-stun-addr", t.stunAddr, func() error {
			once, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := stunAddress(once, t)
			return err
		}},
	} {
		if service.at == "" {
			continue
		}
		for err := service.try(); err != nil; err = service.try() {
			select {
			case <-time.After(retryEvery):
			case <-ctx.Done():
				fmt.Fprintf(os.Stderr, "%s %s does not answer: %v\n", service.name, service.at, err)
				return 1
			}
		}
	}
	return 0
}

func reach(ctx context.Context, network, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// hostOf is a URL's HOST:PORT.
func hostOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return ""
	}
	return u.Host
}
