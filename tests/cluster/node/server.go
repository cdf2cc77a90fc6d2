package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
)

func loadTLS(certificate, key, clientCA string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	pem, err := os.ReadFile(clientCA)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", clientCA)
	}
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		ClientAuth:   tls.RequireAndVerifyClientCert,
		ClientCAs:    pool,
		NextProtos:   []string{"http/1.1"}, // upgrades need it
	}, nil
}

func listen(config *tls.Config) (net.Listener, error) {
	tcp, err := net.Listen("tcp", net.JoinHostPort(hostIP, "0"))
	if err != nil {
		return nil, err
	}
	return listener{tls.NewListener(tcp, config)}, nil
}

// serve answers on the kubelet's own paths, where the API server looks for them, until ctx ends.
func (k *kubelet) serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", k.withContainer(serveExec))
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", k.withContainer(serveAttach))
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.withContainer(serveLogs))
	mux.HandleFunc("/portForward/{namespace}/{pod}", servePortForward)
	server := &http.Server{
		Handler:     mux,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: connectionContext,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	log.Printf("listening on %s", l.Addr())
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (k *kubelet) withContainer(handle func(http.ResponseWriter, *http.Request, *container)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		log.Printf("%s %s", r.Method, r.URL)
		c := k.find(r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("container"))
		if c == nil {
			http.Error(w, fmt.Sprintf("container %q not found", r.PathValue("container")), http.StatusNotFound)
			return
		}
		handle(w, r, c)
	}
}
