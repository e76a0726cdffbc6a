package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"
)

// bareNetHTTP names a server of net/http that only writes answers. It sends the same bytes as dray,
// because it fetches each answer once from dray.
const bareNetHTTP = "net/http"

// beside measures how much more CPU time dray needs than net/http for an answer from the cache.
// For each request, dray authenticates and authorises the client, counts the request, and logs it.
func (b *bench) beside(ctx context.Context) error {
	d, ok := b.dray()
	if !ok {
		return nil
	}
	images, err := b.tagged("bench/beside")
	if err != nil {
		return err
	}
	o, err := openOrigin(shape{}, images...)
	if err != nil {
		return err
	}
	defer o.close()
	first, err := b.start(ctx, drayWith(d.path, besideConfig), o)
	if err != nil {
		return err
	}
	defer first.stop()
	second, err := b.startBare(ctx, first.plain)
	if err != nil {
		return err
	}
	defer second.stop()
	servers := map[string]*running{dray: first, bareNetHTTP: second}
	credentials := "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bench:bench")) + "\r\n"
	next := func(client, n int) (string, string) { return images[(client*31+n)%len(images)].byTag(), "" }
	peers := []peer{{name: dray}, {name: bareNetHTTP}}
	return eachRound(b.plan.WarmRounds, peers, func(round int, p peer) error {
		newClient := func() *client {
			c := b.loader.client(servers[p.name].plain, false)
			c.extra = credentials
			return c
		}
		if round == 0 { // fills dray from the origin, and then the bare server from dray
			if err := askAll(ctx, newClient(), images); err != nil {
				return err
			}
		}
		l, err := b.saturateWith(ctx, servers[p.name], b.plan.ManifestClients, newClient, next)
		b.results.add(besideCPU, p.name, float64(l.PerRequest.Nanoseconds())/1e3)
		return err
	})
}

func askAll(ctx context.Context, c *client, images []*image) error {
	defer c.close()
	for _, img := range images {
		if _, err := c.get(ctx, img.byTag(), ""); err != nil {
			return err
		}
	}
	return nil
}

// besideConfig is drayConfig with users and their rights, and with an access log.
const besideConfig = `
listeners:
  - {name: plain, address: "{plain}", role: mirror, upstreams: [origin], auth: builders}
  - {name: secure, address: "{secure}", role: mirror, upstreams: [origin], auth: builders, tls: {certificate: "{certificate}", private_key: "{key}"}}
upstreams:
  - {name: origin, kind: oci, url: "http://{origin}"}
auth:
  - name: builders
    htpasswd: {file: "{dir}/users"}
    rules: [{users: [bench], repositories: ["bench/*"], actions: [pull]}]
cache: {directory: "{dir}/cache"}
admin: {address: "off"}
log: {level: info, access: true}
`

// startBare starts this program as a child process, which is a bare server. The bare server repeats
// the answers of the server at sourceAddress.
func (b *bench) startBare(ctx context.Context, sourceAddress string) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	addresses, err := freeAddresses(1)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(b.dir, "bare")
	if err != nil {
		return nil, err
	}
	p, err := startProcess(dir, nil, self, "-bare", addresses[0], "-bare-source", sourceAddress)
	if err != nil {
		return nil, err
	}
	r := &running{peer: bareNetHTTP, site: site{dir: dir, plain: addresses[0]}, processes: []*process{p}}
	if err := p.ready(ctx, r.plain); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// bare is a server that repeats the answers of another server. It requests each path from that
// server once.
type bare struct {
	source  string
	answers sync.Map // path to *repeated
}

type repeated struct {
	header http.Header
	body   []byte
}

func (s *bare) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	known, ok := s.answers.Load(r.URL.Path)
	if !ok {
		found, err := s.ask(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		known, _ = s.answers.LoadOrStore(r.URL.Path, found)
	}
	a := known.(*repeated)
	h := w.Header()
	for name, values := range a.header {
		h[name] = values
	}
	_, _ = w.Write(a.body) // the client counts the bytes
}

func (s *bare) ask(r *http.Request) (*repeated, error) {
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+s.source+r.URL.Path, http.NoBody)
	if err != nil {
		return nil, err
	}
	request.Header = r.Header
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", answer.StatusCode)
	}
	answer.Header.Del("Date") // net/http writes a Date of its own
	return &repeated{answer.Header, body}, err
}

func (s *bare) serve(ctx context.Context, address string) error {
	server := &http.Server{Addr: address, Handler: s, ReadHeaderTimeout: time.Minute}
	end := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer end()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
