// Command udprelay is upstream's own peer relay behind the admin resource of the relay under test, so that
// the judge's UDP cases and the benchmark can be held against upstream itself. It runs until killed.
package main

import (
	"encoding/json"
	"errors"
	"flag"
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

func main() {
	socket := flag.String("admin-socket", "", "where to listen for allocations")
	endpoints := flag.String("endpoints", "", "IP:PORT,... to advertise; the port of the first is the relay's")
	flag.Parse()
	log.Fatal(serve(*socket, *endpoints))
}

func serve(adminSocket, endpoints string) error {
	var at []netip.AddrPort
	for text := range strings.SplitSeq(endpoints, ",") {
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
	http.HandleFunc("POST /v1/udp/endpoints", func(w http.ResponseWriter, r *http.Request) {
		var request struct{ ClientDisco []key.DiscoPublic }
		if err := json.NewDecoder(r.Body).Decode(&request); err != nil || len(request.ClientDisco) != 2 {
			http.Error(w, "the body is {\"ClientDisco\":[KEY,KEY]}", http.StatusBadRequest)
			return
		}
		ep, err := relay.AllocateEndpoint(request.ClientDisco[0], request.ClientDisco[1])
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(ep)
	})
	return http.Serve(listener, nil)
}
