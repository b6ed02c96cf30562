package main

import (
	"encoding/json"
	"errors"
	"log"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"tailscale.com/net/udprelay"
	"tailscale.com/types/key"
	"tailscale.com/types/views"
	"tailscale.com/util/usermetric"
)

// serveDouble puts upstream's own relay server behind the same admin resource as the relay under test, so
// that the UDP cases can be held against upstream itself. It runs until killed.
func serveDouble(adminSocket, staticEndpoints string) error {
	var at []netip.AddrPort
	for text := range strings.SplitSeq(staticEndpoints, ",") {
		addr, err := netip.ParseAddrPort(text)
		if err != nil {
			return err
		}
		at = append(at, addr)
	}
	relay, err := udprelay.NewServer(log.Printf, at[0].Port(), true, new(usermetric.Registry), nil)
	if err != nil {
		return err
	}
	relay.SetStaticAddrPorts(views.SliceOf(at))
	if err := os.Remove(adminSocket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", adminSocket)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/udp/endpoints", func(w http.ResponseWriter, r *http.Request) {
		var request struct{ ClientDisco []key.DiscoPublic }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if len(request.ClientDisco) != 2 {
			http.Error(w, "two keys make a pair", http.StatusBadRequest)
			return
		}
		ep, err := relay.AllocateEndpoint(request.ClientDisco[0], request.ClientDisco[1])
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(ep)
	})
	return http.Serve(listener, mux)
}
