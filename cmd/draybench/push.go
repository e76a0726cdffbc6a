package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// lineAlone names the measurement of a network line alone: a [line] carries the bytes of the layer,
// without dray and without a registry.
const lineAlone = "the line"

// push measures two transfers in each round. One brings an image through dray to a stand-in for
// Amazon ECR, over a [line] with the rate of the plan. The other brings the bytes of the image's
// layer over such a line without dray.
func (b *bench) push(ctx context.Context) error {
	d, ok := b.dray()
	if !ok || b.fakeECR == "" {
		return nil
	}
	img, err := newImage("bench/push", "v1", 1, b.plan.Push)
	if err != nil {
		return err
	}
	peers := []peer{{name: dray}, {name: lineAlone}}
	return eachRound(b.plan.PushRounds, peers, func(_ int, p peer) error {
		var took time.Duration
		var err error
		if p.name == lineAlone {
			took, err = b.sendOverLine(ctx, img.layers[0].bytes)
		} else {
			took, err = b.pushThrough(ctx, d, pushConfig, img)
		}
		b.results.add(pushWall, p.name, took.Seconds())
		return err
	})
}

// line is a proxy for connections to an address, and limits the rate of the bytes towards that
// address.
type line struct {
	net.Listener
	to      string
	limit   limiter
	working sync.WaitGroup
}

func openLine(to string, rate int64) (*line, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &line{Listener: listener, to: to, limit: limiter{rate: rate}}
	l.working.Go(func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			l.working.Go(func() { l.forward(from) })
		}
	})
	return l, nil
}

// close stops the listener, and waits until both ends of all connections are closed.
func (l *line) close() {
	_ = l.Close() // an error would change nothing here
	l.working.Wait()
}

func (l *line) forward(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	l.working.Go(func() {
		_, _ = io.Copy(from, to) // both ends see the error themselves
		_ = from.Close()
	})
	buf := make([]byte, shapedPiece)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			_ = pause(context.Background(), l.limit.reserve(n, time.Now()))
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// sendOverLine sends bytes to a server that discards them, and waits for its answer.
func (b *bench) sendOverLine(ctx context.Context, body []byte) (time.Duration, error) {
	o := newOrigin(shape{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	o.server = &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }), ReadHeaderTimeout: time.Minute}
	o.serving.Go(func() { _ = o.server.Serve(listener) })
	l, err := openLine(listener.Addr().String(), b.plan.Total)
	if err != nil {
		return 0, err
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	begun := time.Now()
	_, err = ask(ctx, client, http.MethodPut, "http://"+l.Addr().String()+"/", "", body)
	took := time.Since(begun)
	o.close()
	l.close()
	return took, err
}

func (b *bench) pushThrough(ctx context.Context, d peer, config string, img *image) (time.Duration, error) {
	registry, host, api, err := b.startFakeECR(ctx)
	if err != nil {
		return 0, err
	}
	defer registry.stop()
	l, err := openLine(registry.plain, b.plan.Total)
	if err != nil {
		return 0, err
	}
	defer l.close()
	p := drayWith(d.path, strings.NewReplacer("{host}", host, "{line}", l.Addr().String()).Replace(config))
	p.env = []string{"AWS_ACCESS_KEY_ID=AKIAIOSFODNN7EXAMPLE", "AWS_SECRET_ACCESS_KEY=not-a-secret", "AWS_REGION=eu-west-1", "AWS_ENDPOINT_URL_ECR=" + api, "AWS_EC2_METADATA_DISABLED=true"}
	r, err := b.start(ctx, p, &origin{address: l.Addr().String()})
	if err != nil {
		return 0, err
	}
	defer r.stop()
	begun := time.Now()
	err = pushImage(ctx, "http://"+r.plain, img)
	return time.Since(begun), err
}

const pushConfig = `
listeners:
  - {name: plain, address: "{plain}", role: registry, upstreams: [ecr]}
  - {name: secure, address: "{secure}", role: registry, upstreams: [ecr], tls: {certificate: "{certificate}", private_key: "{key}"}}
upstreams:
  - {name: ecr, kind: ecr, url: "http://{host}", address: "{line}", push: true}
cache: {directory: "{dir}/cache"}
admin: {address: "off"}
log: {level: error, access: false}
`

// startFakeECR starts the stand-in. host is the name of its registry, and api is the URL of its
// API.
func (b *bench) startFakeECR(ctx context.Context) (r *running, host, api string, err error) {
	dir, err := os.MkdirTemp(b.dir, "ecr")
	if err != nil {
		return nil, "", "", err
	}
	addresses, err := freeAddresses(4)
	if err != nil {
		return nil, "", "", err
	}
	where := filepath.Join(dir, "ready")
	p, err := startProcess(dir, nil, b.fakeECR, "--registry", addresses[0], "--api", addresses[1], "--objects", addresses[2], "--control", addresses[3],
		"--data", filepath.Join(dir, "data"), "--ready-file", where, "--repository", "bench/push")
	if err != nil {
		return nil, "", "", err
	}
	r = &running{peer: "ECR", site: site{dir: dir, plain: addresses[0]}, processes: []*process{p}}
	var ready struct{ RegistryHost, API string }
	for _, address := range addresses {
		err = errors.Join(err, p.ready(ctx, address))
	}
	for until := time.Now().Add(10 * time.Second); err == nil; {
		raw, failed := os.ReadFile(where)
		if failed == nil && json.Unmarshal(raw, &ready) == nil {
			return r, ready.RegistryHost, ready.API, nil
		}
		if time.Now().After(until) {
			err = fmt.Errorf("the stand-in for ECR is not ready: %w", failed)
		}
		_ = pause(ctx, time.Now().Add(5*time.Millisecond))
	}
	r.stop()
	return nil, "", "", err
}

// pushImage pushes as docker does: each blob in one PATCH, then the manifest.
func pushImage(ctx context.Context, base string, img *image) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	repo := base + "/v2/" + img.repo
	for _, blob := range img.blobs() {
		at, err := ask(ctx, client, http.MethodPost, repo+"/blobs/uploads/", "", nil)
		if err != nil {
			return err
		}
		if at, err = ask(ctx, client, http.MethodPatch, base+at, "application/octet-stream", blob.bytes); err != nil {
			return err
		}
		joint := "?"
		if strings.Contains(at, "?") {
			joint = "&"
		}
		if _, err := ask(ctx, client, http.MethodPut, base+at+joint+"digest="+blob.digest, "", nil); err != nil {
			return err
		}
	}
	_, err := ask(ctx, client, http.MethodPut, repo+"/manifests/"+img.tag, manifestType, img.manifest.bytes)
	return err
}

// ask sends a request, and returns the Location of the answer, which is a path.
func ask(ctx context.Context, client *http.Client, method, url, mediaType string, body []byte) (location string, err error) {
	request, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	if mediaType != "" {
		request.Header.Set("Content-Type", mediaType)
	}
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, text)
	}
	return answer.Header.Get("Location"), err
}
