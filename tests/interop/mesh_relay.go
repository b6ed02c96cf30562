package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tailscale.com/types/key"
)

// meshRelay is a server under test that has a mesh key. Each mesh case starts its own, because a watcher is
// told of everyone who is connected, and because a server dials its mesh peers as it starts: they must listen
// before it does, or the case waits for the second attempt, 5 seconds later.
type meshRelay struct {
	target  // Its url alone.
	words   []string
	dir     string
	ca      *authority
	private key.NodePrivate
	meshKey key.DERPMesh

	addr    string
	command *exec.Cmd
	log     bytes.Buffer
	ended   chan struct{} // Closed after the process ended and its log is whole.
}

// relayHost is where the server under test and the judge's own servers listen.
const relayHost = "127.0.0.1"

// dirInWords is replaced by the directory of the relay's files.
const dirInWords = "{dir}"

// newMeshRelay prepares a relay's files: its keys, and a certificate of the mesh's authority.
func newMeshRelay(t *target) (*meshRelay, error) {
	r := &meshRelay{words: t.server, private: key.NewNode()}
	r.logf = t.logf
	var secret [32]byte
	rand.Read(secret[:])
	// Letters in it, so that upper and lower case differ.
	secret[0] = 0xab
	var err error
	if r.meshKey, err = key.ParseDERPMesh(hex.EncodeToString(secret[:])); err != nil {
		return nil, err
	}
	if r.ca, err = newAuthority(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "judge-"); err != nil {
		return nil, err
	}
	config, err := json.Marshal(struct{ PrivateKey key.NodePrivate }{r.private})
	if err == nil {
		err = os.WriteFile(r.file("derper.key"), config, 0o600)
	}
	if err == nil {
		err = r.writeMeshKey(r.meshKey.String())
	}
	if err == nil {
		err = r.ca.save(r.dir, relayHost)
	}
	if err != nil {
		r.remove()
	}
	return r, err
}

func (r *meshRelay) file(name string) string { return filepath.Join(r.dir, name) }

func (r *meshRelay) writeMeshKey(text string) error {
	return os.WriteFile(r.file("mesh.key"), []byte(text), 0o600)
}

// keyed is the flag that gives a relay its mesh key.
func (r *meshRelay) keyed() string { return "-mesh-psk-file=" + r.file("mesh.key") }

// launch starts the process on a port that was free a moment ago.
func (r *meshRelay) launch(args ...string) error {
	listener, err := net.Listen("tcp", relayHost+":0")
	if err != nil {
		return err
	}
	r.addr = listener.Addr().String()
	listener.Close()
	r.url = "https://" + r.addr + "/derp"
	args = append([]string{
		"-a", r.addr, "-c", r.file("derper.key"), "-certmode", "manual", "-hostname", relayHost,
		"-certdir", r.dir, "-http-port=-1", "-stun=false",
	}, args...)
	words := append(append([]string(nil), r.words...), args...)
	for i, word := range words {
		words[i] = strings.ReplaceAll(word, dirInWords, r.dir)
	}
	r.log.Reset()
	r.command = exec.Command(words[0], words[1:]...)
	r.command.Stdout, r.command.Stderr = &r.log, &r.log
	// The home directory is a place where derper looks for a mesh key.
	r.command.Env = append(os.Environ(), "SSL_CERT_FILE="+r.file("ca.pem"), "HOME="+r.dir)
	// A judge that is killed leaves no server behind.
	r.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.ended = make(chan struct{})
	if err := r.command.Start(); err != nil {
		return err
	}
	go func(command *exec.Cmd, ended chan struct{}) {
		command.Wait()
		close(ended)
	}(r.command, r.ended)
	return nil
}

// start launches the relay and returns once it answers with its own key.
func (r *meshRelay) start(ctx context.Context, args ...string) error {
	const attempts = 3 // Another process may take the port before the relay does.
	var err error
	for range attempts {
		if err = r.launch(args...); err != nil {
			return err
		}
		if err = r.awaitAnswer(ctx); err == nil {
			return nil
		}
		r.stop()
	}
	return fmt.Errorf("the relay does not start: %w", err)
}

func (r *meshRelay) awaitAnswer(ctx context.Context) error {
	for {
		_, meta, err := serverCertificates(ctx, r.addr)
		if err == nil && meta != r.private.Public() {
			return errors.New("another server answers")
		}
		if err == nil {
			return nil
		}
		select {
		case <-r.ended:
			return fmt.Errorf("it ended: %v", r.command.ProcessState)
		case <-time.After(retryEvery):
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", err)
		}
	}
}

func (r *meshRelay) stop() {
	if r.command == nil || r.command.Process == nil {
		return
	}
	r.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.ended:
	case <-time.After(time.Second):
		r.command.Process.Kill()
		<-r.ended
	}
	r.command = nil
}

func (r *meshRelay) remove() {
	r.stop()
	os.RemoveAll(r.dir)
}

// showLog stops the relay and prints the end of its log: for whoever reads why a case failed.
func (r *meshRelay) showLog() {
	r.stop()
	lines := strings.Split(strings.TrimSpace(r.log.String()), "\n")
	fmt.Fprintf(os.Stderr, "the relay's log ends:\n%s\n", strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// meshCase gives a case a relay with a mesh key.
func meshCase(
	run func(context.Context, *meshRelay) (string, error),
) func(context.Context, *target) (string, error) {
	return relayCase(func(ctx context.Context, r *meshRelay) (string, error) {
		if err := r.start(ctx, r.keyed()); err != nil {
			return "", err
		}
		return run(ctx, r)
	})
}

// relayCase gives a case a relay that is yet to be started.
func relayCase(
	run func(context.Context, *meshRelay) (string, error),
) func(context.Context, *target) (string, error) {
	return func(ctx context.Context, t *target) (string, error) {
		r, err := newMeshRelay(t)
		if err != nil {
			return "", err
		}
		defer r.remove()
		detail, err := run(ctx, r)
		if err != nil {
			r.showLog()
		}
		return detail, err
	}
}
