// Command node stands in for a kubelet, in tests and the demo only.
//
// It registers one node, binds and "runs" every pod, and serves the kubelet's logs, exec, attach and
// port-forward with Kubernetes' own streaming code (k8s.io/cri-streaming). There is no container runtime: a
// container is its command, run here as a process of this machine, or, where there is no such command here, a
// line printed every second. Port-forward dials 127.0.0.1. It must therefore never face anything but a
// throw-away API server on loopback.
//
// Reading order: pods.go what becomes of a pod; container.go, process.go, terminal.go what runs;
// status.go and registration.go what is reported; server.go, connection.go, streaming.go, logs.go what is served.
package main

import (
	"context"
	"flag"
	"log"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig for nodes and pods")
	certificate := flag.String("certificate", "", "serving certificate, PEM")
	key := flag.String("key", "", "key of the serving certificate, PEM")
	clientCA := flag.String("client-ca", "", "CA that the API server's client certificate must chain to, PEM")
	root := flag.String("root", "", "folder of the containers' working directories")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	exitOn(err)
	config.QPS, config.Burst = 200, 400
	client, err := kubernetes.NewForConfig(config)
	exitOn(err)
	tlsConfig, err := loadTLS(*certificate, *key, *clientCA)
	exitOn(err)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	k := newKubelet(client, *root)
	listener, err := listen(tlsConfig)
	exitOn(err)
	go k.keepRegistered(ctx, listener.Addr())
	go k.followPods(ctx)
	exitOn(k.serve(ctx, listener))
	processes.Wait()
}

func exitOn(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
