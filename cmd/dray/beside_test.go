package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"dray/upstream/ecrtest"
)

// These benchmarks show what dray adds to net/http when it answers from its cache, with
// everything on: clients have names and rights, requests are counted and logged, and
// come through the listener that serve uses. Each has a twin in which net/http alone
// writes the same bytes. Compare cpu-µs/op, which holds the same client on both sides.

func BenchmarkManifestByTag(b *testing.B) {
	benchmarkDray(b, func(seeded) string { return "/v2/hub/bench/app/manifests/v1" })
}

func BenchmarkManifestByDigest(b *testing.B) {
	benchmarkDray(b, func(img seeded) string { return "/v2/hub/bench/app/manifests/" + img.manifest.Digest.String() })
}

func BenchmarkBlobOf64KiB(b *testing.B) {
	benchmarkDray(b, func(img seeded) string { return "/v2/hub/bench/app/blobs/" + img.layer.String() })
}

func benchmarkDray(b *testing.B, path func(seeded) string) {
	dir := b.TempDir()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	hash, err := bcrypt.GenerateFromPassword([]byte("bench"), bcrypt.MinCost)
	if err != nil {
		b.Fatal(err)
	}
	users := filepath.Join(dir, "users")
	if err := os.WriteFile(users, fmt.Appendf(nil, "bench:%s\n", hash), 0o600); err != nil {
		b.Fatal(err)
	}
	hub := ecrtest.Start(b, ecrtest.Options{Quirks: ecrtest.Hub()})
	s := startLogging(b, log, ecrtest.Start(b, ecrtest.Options{}), hub, dir,
		"name: main, ", "name: main, auth: builders, ",
		"cache: {", `auth: [{name: builders, htpasswd: {file: "`+users+`"}, rules: [{users: [bench], repositories: ["hub/*"], actions: [pull]}]}]`+"\ncache: {")
	img := seed(b, hub, "bench/app", "v1", 64<<10)
	ln, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = s.servers[0].Serve(b.Context(), ln) }() // ends with the benchmark
	ask := requestFor(path(img))
	c := dialBench(b, ln.Addr().String())
	for range 2 { // the second answer is a hit
		c.exchange(b, ask)
	}
	whole, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(c.last.Bytes())), nil)
	if err != nil {
		b.Fatal(err)
	}
	defer whole.Body.Close()
	_, body, _ := bytes.Cut(c.last.Bytes(), []byte("\r\n\r\n"))
	header := whole.Header
	header.Del("Date")
	header.Del("X-Request-Id")
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		for name, values := range header {
			h[name] = values
		}
		_, _ = w.Write(body)
	}))
	defer plain.Close()
	for _, server := range []struct{ name, address string }{{"dray", ln.Addr().String()}, {"net-http", plain.Listener.Addr().String()}} {
		b.Run(server.name, func(b *testing.B) {
			c := dialBench(b, server.address)
			c.exchange(b, ask)
			b.ReportAllocs()
			before := cpuTime(b)
			for b.Loop() {
				c.exchange(b, ask)
			}
			b.ReportMetric(float64((cpuTime(b)-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
		})
	}
}

func requestFor(path string) []byte {
	r := httptest.NewRequest("GET", path, http.NoBody)
	r.SetBasicAuth("bench", "bench")
	return fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: dray\r\nUser-Agent: bench\r\nAccept: %s\r\nAuthorization: %s\r\n\r\n",
		path, "application/vnd.oci.image.manifest.v1+json, */*", r.Header.Get("Authorization"))
}

// benchClient costs little, and the same with every server.
type benchClient struct {
	net.Conn
	r    *bufio.Reader
	last bytes.Buffer
}

func dialBench(b *testing.B, address string) *benchClient {
	c, err := new(net.Dialer).DialContext(b.Context(), "tcp", address)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return &benchClient{Conn: c, r: bufio.NewReaderSize(c, 128<<10)}
}

// exchange keeps the answer in last.
func (c *benchClient) exchange(b *testing.B, ask []byte) {
	if _, err := c.Write(ask); err != nil {
		b.Fatal(err)
	}
	c.last.Reset()
	length := 0
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		c.last.Write(line)
		if after, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			for _, digit := range bytes.TrimSpace(after) {
				length = length*10 + int(digit-'0')
			}
		}
		if len(line) == 2 {
			break
		}
	}
	if !bytes.HasPrefix(c.last.Bytes(), []byte("HTTP/1.1 200")) {
		b.Fatalf("%s", c.last.String())
	}
	body, err := c.r.Peek(length)
	if err != nil {
		b.Fatal(err)
	}
	c.last.Write(body)
	if _, err := c.r.Discard(length); err != nil {
		b.Fatal(err)
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
