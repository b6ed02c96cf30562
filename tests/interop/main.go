// Command judge drives a running relay with upstream's own client packages and says, case by case, whether
// the relay behaves as Tailscale's. It knows nothing of the relay under test but its addresses and, for the
// mesh cases, the command that starts it, so the same cases can be held against upstream's derper and its UDP
// relay server to see that they ask for what upstream does.
//
// Output: one line a case, "PASS name detail", "FAIL name reason" or, where an address the case needs was
// not given and the case was not asked for by name, "SKIP name reason". Exit status 1 if a case failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"tailscale.com/types/logger"
)

// target is the relay under test: where each of its services listens. Empty means "not given".
type target struct {
	url         string // TLS listener, https://HOST:PORT/derp
	plainURL    string // a second relay without TLS, http://HOST:PORT/derp
	httpURL     string // plain companion of the TLS listener, http://HOST:PORT
	stunAddr    string // HOST:PORT
	adminSocket string // path of the admin unix socket
	shortSocket string // that of another relay, whose sessions live for seconds

	// What that relay was told: how long its sessions may stay unbound, and idle.
	shortBind, shortSteady time.Duration

	// server is a command that starts another relay when derper's flags are appended: for the mesh cases.
	server []string

	logf logger.Logf
}

// testCase is one judgement. Its context ends at its timeout, and with it every socket the case opened.
type testCase struct {
	name    string
	needs   func(*target) (flag, value string)
	timeout time.Duration
	run     func(context.Context, *target) (detail string, err error)
}

func needsURL(t *target) (string, string)    { return "-url", t.url }
func needsPlain(t *target) (string, string)  { return "-plain-url", t.plainURL }
func needsHTTP(t *target) (string, string)   { return "-http-url", t.httpURL }
func needsSTUN(t *target) (string, string)   { return "-stun-addr", t.stunAddr }
func needsSocket(t *target) (string, string) { return "-admin-socket", t.adminSocket }

func needsServer(t *target) (string, string) { return "-server", strings.Join(t.server, " ") }

// skipError is returned by a case that found that the target cannot be asked (say, no IPv6 address
// advertised).
type skipError string

func (e skipError) Error() string { return string(e) }

func main() {
	log.SetFlags(log.Lmicroseconds)
	t := &target{logf: logger.Discard}
	flag.StringVar(&t.url, "url", "", "DERP over TLS, https://HOST:PORT/derp")
	flag.StringVar(&t.plainURL, "plain-url", "", "DERP without TLS, http://HOST:PORT/derp")
	flag.StringVar(&t.httpURL, "http-url", "", "plain HTTP companion of the TLS listener, http://HOST:PORT")
	flag.StringVar(&t.stunAddr, "stun-addr", "", "STUN, HOST:PORT")
	flag.StringVar(&t.adminSocket, "admin-socket", "", "unix socket that allocates UDP relay endpoints")
	flag.StringVar(&t.shortSocket, "short-socket", "", "admin socket of a relay whose sessions live for seconds")
	flag.DurationVar(&t.shortBind, "short-bind", 2*time.Second, "the bind lifetime of that relay")
	flag.DurationVar(&t.shortSteady, "short-steady", 3*time.Second, "the steady lifetime of that relay")
	flag.Func("server", "one word (repeat the flag) of a command that starts a relay when derper's flags are "+
		"appended; "+dirInWords+" in it is a directory for the relay's files", func(word string) error {
		t.server = append(t.server, word)
		return nil
	})
	flag.BoolVar(&newestClaim, "newest-claim", false, "the relay sends packets for a key that several peers have to "+
		"the peer that had it last; upstream's keeps to the one that had it first")
	flag.BoolVar(&latestNews, "latest-news", false, "the relay tells a watcher that takes nothing only the latest "+
		"about each key, and nothing of keys that came and left; upstream's keeps everything")
	flag.BoolVar(&severalHandshakes, "several-handshakes", false, "the relay remembers several handshakes of a leg, "+
		"so that an overtaken challenge may still be answered; upstream's remembers the last one")
	only := flag.String("case", "all", "comma-separated case names, or all")
	list := flag.Bool("list", false, "print the case names and exit")
	wait := flag.Duration("await", 0, "wait at most this long for the given services to answer, judge nothing")
	verbose := flag.Bool("v", false, "log what the upstream clients say to stderr")
	flag.Parse()
	if *verbose {
		t.logf = log.Printf
	}

	switch {
	case *list:
		for _, c := range cases() {
			fmt.Println(c.name)
		}
		return
	case *wait != 0:
		os.Exit(await(t, *wait))
	}
	os.Exit(runCases(t, *only))
}

func cases() []testCase {
	var all []testCase
	all = append(all, loginCases...)
	all = append(all, trafficCases...)
	all = append(all, noticeCases...)
	all = append(all, frameCases...)
	all = append(all, webCases...)
	all = append(all, allocateCases...)
	all = append(all, udpCases...)
	all = append(all, udpRefusalCases...)
	all = append(all, udpShapeCases...)
	all = append(all, udpEndCases...)
	all = append(all, meshWatchCases...)
	all = append(all, meshRightsCases...)
	all = append(all, meshForwardCases...)
	all = append(all, meshLoopCases...)
	all = append(all, meshLinkCases...)
	all = append(all, meshTrustCases...)
	all = append(all, meshScriptCases...)
	all = append(all, meshTableCases...)
	return all
}

func runCases(t *target, only string) (status int) {
	wanted := map[string]bool{}
	if only != "all" {
		for name := range strings.SplitSeq(only, ",") {
			wanted[name] = true
		}
	}
	for _, c := range cases() {
		if only != "all" && !wanted[c.name] {
			continue
		}
		delete(wanted, c.name)
		if name, value := c.needs(t); value == "" {
			if only != "all" {
				fmt.Printf("FAIL %s needs %s\n", c.name, name)
				status = 1
			} else {
				fmt.Printf("SKIP %s needs %s\n", c.name, name)
			}
			continue
		}
		start := time.Now()
		detail, err := runBounded(c, t)
		took := time.Since(start).Round(time.Millisecond)
		switch err := err.(type) {
		case nil:
			fmt.Printf("PASS %s %s (%v)\n", c.name, detail, took)
		case skipError:
			fmt.Printf("SKIP %s %v\n", c.name, err)
		default:
			fmt.Printf("FAIL %s %v (%v)\n", c.name, strings.ReplaceAll(err.Error(), "\n", " "), took)
			status = 1
		}
	}
	for name := range wanted {
		fmt.Printf("FAIL %s no such case\n", name)
		status = 1
	}
	return status
}

// runBounded gives up on a case that does not heed its context soon after the context ended.
func runBounded(c testCase, t *target) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	type outcome struct {
		detail string
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		detail, err := c.run(ctx, t)
		done <- outcome{detail, err}
	}()
	select {
	case o := <-done:
		return o.detail, o.err
	case <-time.After(c.timeout + 2*time.Second):
		return "", fmt.Errorf("still running %v after its timeout of %v", 2*time.Second, c.timeout)
	}
}
