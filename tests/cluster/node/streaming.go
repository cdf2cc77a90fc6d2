package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

const (
	idleTimeout     = 4 * time.Hour
	creationTimeout = remotecommand.DefaultStreamCreationTimeout
)

// session is what the streaming code calls back for one request; ctx ends with the client's connection.
type session struct {
	ctx       context.Context
	container *container
}

func serveExec(w http.ResponseWriter, r *http.Request, c *container) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeExec(w, r, session{r.Context(), c}, "", "", "", r.URL.Query()["command"], options,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func serveAttach(w http.ResponseWriter, r *http.Request, c *container) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	remotecommand.ServeAttach(w, r, session{r.Context(), c}, "", "", "", options,
		idleTimeout, creationTimeout, remotecommand.SupportedStreamingProtocols)
}

func servePortForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, session{ctx: r.Context()}, r.PathValue("pod"), "", options,
		idleTimeout, creationTimeout, portforward.SupportedProtocols)
}

// ExecInContainer runs a command beside the container's own; it ends with the container or the client.
func (s session) ExecInContainer(_ context.Context, _, _, _ string, argv []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	defer context.AfterFunc(s.container.ctx, cancel)()
	p := process{folder: s.container.folder, env: s.container.env, argv: argv, in: in, tty: tty, resize: resize}
	p.out, p.err = orNil(out), orNil(errs)
	return p.run(ctx)
}

// orNil keeps an absent stream absent: an interface that holds a nil interface would not be nil.
func orNil(w io.WriteCloser) io.Writer {
	if w == nil {
		return nil
	}
	return w
}

// AttachContainer joins the client to the container's main process until either goes.
func (s session) AttachContainer(_ context.Context, _, _, _ string, in io.Reader, out, _ io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	c := s.container
	if out != nil {
		defer c.attach(out)()
	}
	go func() {
		for size := range resize {
			select {
			case c.resize <- size:
			case <-c.ctx.Done():
			}
		}
	}()
	if in != nil && c.stdin != nil {
		go func() {
			_, _ = io.Copy(c.stdin, in)
			if c.spec.StdinOnce {
				_ = c.stdin.Close()
			}
		}()
	}
	select {
	case <-s.ctx.Done():
	case <-c.ctx.Done():
	}
	return nil
}

// PortForward joins one connection of the client to a port of this machine.
func (s session) PortForward(_ context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	var dialer net.Dialer
	joined, err := dialer.DialContext(s.ctx, "tcp", net.JoinHostPort(hostIP, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer joined.Close()
	defer context.AfterFunc(s.ctx, func() { _ = joined.Close() })()
	go func() {
		_, _ = io.Copy(joined, stream)
		_ = joined.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, joined)
	return err
}
