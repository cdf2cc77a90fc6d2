package main

import (
	"context"
	"errors"
	"net"
	"os"
)

// An upgraded connection is no longer the HTTP server's, so the request's context would outlive its client. Here
// the context of every request ends with its connection. The wrapper stands over TLS, not under it, because a
// close_notify counts as the client's going too.

type connection struct {
	net.Conn
	over context.CancelFunc
}

func (c *connection) Read(data []byte) (int, error) {
	n, err := c.Conn.Read(data)
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		c.over()
	}
	return n, err
}

func (c *connection) Close() error {
	c.over()
	return c.Conn.Close()
}

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &connection{Conn: accepted}, nil
}

// connectionContext is for http.Server.ConnContext, which is called before the connection is used.
func connectionContext(ctx context.Context, accepted net.Conn) context.Context {
	ctx, over := context.WithCancel(ctx)
	accepted.(*connection).over = over
	return ctx
}
