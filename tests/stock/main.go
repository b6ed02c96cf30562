// Command control is a control server for stock Tailscale nodes: upstream's own for its tests, with one DERP
// map. Whoever asks is logged in, and every node may talk to every other.
//
// The module pins upstream's release 1.102.5, the newest whose tailscaled builds from what the module proxy
// serves.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net/http"
	"os"

	"tailscale.com/tailcfg"
	"tailscale.com/tstest/integration/testcontrol"
)

func main() {
	listen := flag.String("listen", "", "HOST:PORT to serve on")
	baseURL := flag.String("url", "", "what nodes call this server, http://HOST:PORT")
	mapFile := flag.String("derp-map", "", "file with the DERP map, in JSON")
	flag.Parse()

	text, err := os.ReadFile(*mapFile)
	if err != nil {
		log.Fatal(err)
	}
	derpMap := new(tailcfg.DERPMap)
	if err := json.Unmarshal(text, derpMap); err != nil {
		log.Fatalf("%s: %v", *mapFile, err)
	}
	log.Fatal(http.ListenAndServe(*listen, &testcontrol.Server{
		DERPMap:         derpMap,
		ExplicitBaseURL: *baseURL,
		MagicDNSDomain:  "stock.test",
	}))
}
