// Load for benchmarks: sends one GET again and again over keep-alive connections and prints what it saw as JSON.
// Loopback only: any other address is refused.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

type result struct {
	Requests  int     `json:"requests"`
	Failures  int     `json:"failures"`
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"requests_per_second"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	Bytes     int64   `json:"bytes"`
}

func main() {
	target := flag.String("url", "", "what to GET")
	ca := flag.String("ca", "", "CA file of the server")
	tokenFile := flag.String("token-file", "", "bearer token")
	connections := flag.Int("connections", 16, "keep-alive connections, one request at a time each")
	total := flag.Int("requests", 0, "stop after so many; 0 means by time")
	duration := flag.Duration("duration", 5*time.Second, "stop after this long")
	rate := flag.Float64("rate", 0, "requests a second over all connections; 0 is as fast as possible")
	h2 := flag.Bool("h2", false, "offer HTTP/2")
	flag.Parse()
	client := newClient(*target, *ca, *h2, *connections)
	token, err := os.ReadFile(*tokenFile)
	if err != nil {
		log.Fatal(err)
	}
	out := run(client, *target, strings.TrimSpace(string(token)), *connections, *total, *duration, *rate)
	if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
		log.Fatal(err)
	}
}

func newClient(target, ca string, h2 bool, connections int) *http.Client {
	u, err := url.Parse(target)
	if err != nil {
		log.Fatal(err)
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		log.Fatalf("%s is not a loopback address", u.Hostname())
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	transport := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool},
		MaxIdleConnsPerHost: connections,
		MaxConnsPerHost:     connections,
		DisableCompression:  true,
		ForceAttemptHTTP2:   h2,
	}
	if !h2 {
		transport.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	return &http.Client{Transport: transport}
}

func run(client *http.Client, target, token string, connections, total int, duration time.Duration, rate float64) result {
	var mu sync.Mutex
	var wg sync.WaitGroup
	var begun, failures, size atomic.Int64
	var times []float64
	start := time.Now()
	for range connections {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var mine []float64
			for time.Since(start) < duration || total > 0 {
				n := begun.Add(1)
				if total > 0 && n > int64(total) {
					break
				}
				if rate > 0 {
					due := start.Add(time.Duration(float64(n) / rate * float64(time.Second)))
					time.Sleep(time.Until(due))
				}
				t := time.Now()
				got, ok := get(client, target, token)
				mine = append(mine, float64(time.Since(t).Microseconds())/1000)
				size.Add(got)
				if !ok {
					failures.Add(1)
				}
			}
			mu.Lock()
			times = append(times, mine...)
			mu.Unlock()
		}()
	}
	wg.Wait()
	seconds := time.Since(start).Seconds()
	slices.Sort(times)
	at := func(q float64) float64 {
		if len(times) == 0 {
			return 0
		}
		return times[min(len(times)-1, int(q*float64(len(times))))]
	}
	return result{len(times), int(failures.Load()), seconds, float64(len(times)) / seconds, at(0.5), at(0.99), size.Load()}
}

func get(client *http.Client, target, token string) (int64, bool) {
	request, err := http.NewRequest("GET", target, nil)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	response, err := client.Do(request)
	if err != nil {
		return 0, false
	}
	n, err := io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return n, err == nil && response.StatusCode == 200
}
