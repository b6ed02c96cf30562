package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"reflect"
	"time"

	"tailscale.com/net/udprelay/endpoint"
	"tailscale.com/types/key"
)

// Allocation: JSON over HTTP/1.1 on the admin socket; the answer is upstream's ServerEndpoint and nothing
// besides.
var allocateCases = []testCase{
	{"udp-allocate", needsSocket, 15 * time.Second, allocateCase},
	{"udp-allocate-refused", needsSocket, 15 * time.Second, allocateRefused},
}

// postEndpoints sends body to the allocation resource.
func postEndpoints(ctx context.Context, t *target, body []byte) (*http.Response, []byte, error) {
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", t.adminSocket)
		},
		DisableKeepAlives: true,
	}}
	req, err := http.NewRequestWithContext(ctx, "POST", "http://admin/v1/udp/endpoints", bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp, answer, err
}

// allocate asks for a session of these two clients.
func allocate(ctx context.Context, t *target, a, b key.DiscoPublic) (ep endpoint.ServerEndpoint, err error) {
	body, err := json.Marshal(map[string]any{"ClientDisco": []key.DiscoPublic{a, b}})
	if err != nil {
		return ep, err
	}
	resp, answer, err := postEndpoints(ctx, t, body)
	if err != nil {
		return ep, err
	}
	if resp.StatusCode != http.StatusOK {
		return ep, fmt.Errorf("allocation answered %s: %.200q", resp.Status, answer)
	}
	decoder := json.NewDecoder(bytes.NewReader(answer))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&ep); err != nil {
		return ep, fmt.Errorf("%w in %s", err, answer)
	}
	return ep, checkEndpoint(ep, a, b)
}

func checkEndpoint(ep endpoint.ServerEndpoint, a, b key.DiscoPublic) error {
	switch sorted := key.NewSortedPairOfDiscoPublic(a, b).Get(); {
	case ep.ClientDisco != sorted:
		return fmt.Errorf("ClientDisco is %v, want %v", ep.ClientDisco, sorted)
	case ep.ServerDisco.IsZero():
		return fmt.Errorf("ServerDisco is zero")
	case ep.VNI == 0 || ep.VNI >= 1<<24:
		return fmt.Errorf("VNI is %d", ep.VNI)
	case ep.LamportID == 0:
		return fmt.Errorf("LamportID is zero")
	case len(ep.AddrPorts) == 0:
		return fmt.Errorf("no AddrPorts")
	case ep.BindLifetime.Duration <= 0 || ep.SteadyStateLifetime.Duration <= 0:
		return fmt.Errorf("lifetimes are %v and %v", ep.BindLifetime, ep.SteadyStateLifetime)
	}
	return nil
}

func allocateCase(ctx context.Context, t *target) (string, error) {
	a, b, c := key.NewDisco().Public(), key.NewDisco().Public(), key.NewDisco().Public()
	first, err := allocate(ctx, t, a, b)
	if err != nil {
		return "", err
	}
	for _, again := range [][2]key.DiscoPublic{{a, b}, {b, a}} {
		ep, err := allocate(ctx, t, again[0], again[1])
		if err != nil {
			return "", err
		}
		if diff := differs(first, ep); diff != "" {
			return "", fmt.Errorf("asked again: %s", diff)
		}
	}
	other, err := allocate(ctx, t, a, c)
	switch {
	case err != nil:
		return "", err
	case other.VNI == first.VNI:
		return "", fmt.Errorf("two pairs have VNI %d", first.VNI)
	case other.LamportID <= first.LamportID:
		return "", fmt.Errorf("LamportID went from %d to %d", first.LamportID, other.LamportID)
	case other.ServerDisco != first.ServerDisco:
		return "", fmt.Errorf("ServerDisco changed")
	}
	return fmt.Sprintf("VNI %d at %v, lifetimes %v and %v",
		first.VNI, first.AddrPorts, first.BindLifetime.Duration, first.SteadyStateLifetime.Duration), nil
}

// differs names what of two answers for one pair is not the same. Lifetimes may count down: what is left of
// an allocation is as good an answer as the full length.
func differs(first, again endpoint.ServerEndpoint) string {
	if again.BindLifetime.Duration <= first.BindLifetime.Duration {
		again.BindLifetime = first.BindLifetime
	}
	if again.SteadyStateLifetime.Duration <= first.SteadyStateLifetime.Duration {
		again.SteadyStateLifetime = first.SteadyStateLifetime
	}
	if reflect.DeepEqual(first, again) {
		return ""
	}
	return fmt.Sprintf("first %+v, then %+v", first, again)
}

func allocateRefused(ctx context.Context, t *target) (string, error) {
	good, zero := key.NewDisco().Public().String(), key.DiscoPublic{}.String()
	probe, err := allocate(ctx, t, key.NewDisco().Public(), key.NewDisco().Public())
	if err != nil {
		return "", err
	}
	bodies := []string{
		`{"ClientDisco":["` + zero + `","` + good + `"]}`,
		`{"ClientDisco":["` + good + `","` + zero + `"]}`,
		`{"ClientDisco":["` + good + `","` + probe.ServerDisco.String() + `"]}`,
		`{"ClientDisco":["` + good + `"]}`,
		`{"ClientDisco":["` + good + `","nodekey:` + good[len("discokey:"):] + `"]}`,
		`{"ClientDisco":["` + good + `","discokey:00"]}`,
		`{}`,
		`not JSON`,
	}
	for _, body := range bodies {
		resp, answer, err := postEndpoints(ctx, t, []byte(body))
		if err != nil {
			return "", err
		}
		if resp.StatusCode != http.StatusBadRequest || len(bytes.TrimSpace(answer)) == 0 {
			return "", fmt.Errorf("%s answered %s %.100q, want 400 and a sentence", body, resp.Status, answer)
		}
	}
	// The relay still allocates sessions afterwards.
	_, err = allocate(ctx, t, key.NewDisco().Public(), key.NewDisco().Public())
	return fmt.Sprintf("%d requests answered 400", len(bodies)), err
}
