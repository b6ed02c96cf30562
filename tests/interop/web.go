package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"tailscale.com/net/stun"
)

var webCases = []testCase{
	{"derp-http", needsURL, 15 * time.Second, derpPages},
	{"derp-http-204", needsHTTP, 15 * time.Second, generate204},
	{"stun", needsSTUN, 15 * time.Second, stunAddress},
}

type page struct {
	method, url string
	header      http.Header
	status      int
	body        string
	want        map[string]string // response headers; "" means absent
}

// get fetches one page on a connection of its own, redirects not followed, and compares.
func (want page) get(ctx context.Context) error {
	client := http.Client{
		Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, want.method, want.url, nil)
	if err != nil {
		return err
	}
	for name := range want.header {
		req.Header.Set(name, want.header.Get(name))
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	what := want.method + " " + req.URL.Path
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", what, err)
	case resp.StatusCode != want.status:
		return fmt.Errorf("%s: status %s, want %d", what, resp.Status, want.status)
	case string(body) != want.body:
		return fmt.Errorf("%s: body %.100q, want %q", what, body, want.body)
	}
	for name, value := range want.want {
		if got := resp.Header.Get(name); got != value {
			return fmt.Errorf("%s: header %s is %q, want %q", what, name, got, value)
		}
	}
	return nil
}

func getAll(ctx context.Context, pages []page) (string, error) {
	for _, p := range pages {
		if err := p.get(ctx); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d answers", len(pages)), nil
}

func derpPages(ctx context.Context, t *target) (string, error) {
	anyOrigin := map[string]string{"Access-Control-Allow-Origin": "*"}
	text := map[string]string{"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
	const upgrade = "DERP requires connection upgrade\n"
	other := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"h2c"}}
	return getAll(ctx, []page{
		{method: "GET", url: t.url + "/probe", status: 200, want: anyOrigin},
		{method: "HEAD", url: t.url + "/probe", status: 200, want: anyOrigin},
		{method: "GET", url: t.url + "/latency-check", status: 200, want: anyOrigin},
		{method: "GET", url: t.url, status: 426, body: upgrade, want: text},
		{method: "GET", url: t.url, header: other, status: 426, body: upgrade, want: text},
	})
}

// generate204 is how clients look for captive portals: the answer must carry their challenge.
func generate204(ctx context.Context, t *target) (string, error) {
	at := strings.TrimSuffix(t.httpURL, "/") + "/generate_204"
	challenge := func(c string) http.Header { return http.Header{"X-Tailscale-Challenge": {c}} }
	answer := func(r string) map[string]string {
		return map[string]string{
			"X-Tailscale-Response": r,
			"Cache-Control":        "no-cache, no-store, must-revalidate, no-transform, max-age=0",
		}
	}
	longest := strings.Repeat("Az09._:-", 8)
	return getAll(ctx, []page{
		{method: "GET", url: at, status: 204, want: answer("")},
		{method: "GET", url: at + "?t=1", header: challenge("ts_192.0.2.1"), status: 204,
			want: answer("response ts_192.0.2.1")},
		{method: "GET", url: at, header: challenge(longest), status: 204, want: answer("response " + longest)},
		{method: "GET", url: at, header: challenge(longest + "x"), status: 204, want: answer("")},
		{method: "GET", url: at, header: challenge("no spaces"), status: 204, want: answer("")},
	})
}

func stunAddress(ctx context.Context, t *target) (string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", t.stunAddr)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetReadDeadline(deadline)
	self := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	for range 3 {
		id := stun.NewTxID()
		if _, err := conn.Write(stun.Request(id)); err != nil {
			return "", err
		}
		b := make([]byte, 1500)
		n, err := conn.Read(b)
		if err != nil {
			return "", err
		}
		got, addr, err := stun.ParseResponse(b[:n])
		switch {
		case err != nil:
			return "", fmt.Errorf("%w in %x", err, b[:n])
		case got != id:
			return "", fmt.Errorf("transaction %x, want %x", got, id)
		case addr != self:
			return "", fmt.Errorf("told %v, want %v", addr, self)
		}
	}
	return "told " + self.String(), nil
}
