package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/cmd/dray/config"
	"dray/cmd/dray/reload"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

// stack is a whole dray, put together as serve does, before a fake ECR and a fake
// Docker Hub.
type stack struct {
	testing.TB
	*graph
	ecr, hub *ecrtest.Running
	path     string // the configuration
	level    slog.LevelVar
	url      string
	adminURL string       // empty until somebody asks for it
	client   *http.Client // nil: a plain one
	stop     func()
}

// stackConfig is the configuration of a stack; the placeholders are filled in by
// startStack. The tag windows are those of the tests that need none, and nothing is
// fetched that no test asked for.
const stackConfig = `
listeners: [{name: main, upstreams: [ecr, hub]}]
upstreams:
- name: ecr
  url: http://ECR_HOST
  address: ECR_ADDR
  kind: ecr
  push: true
  prefixes: [aws]
  keep_alive: 0s
  tags: {fresh: 1h, stale: 24h, not_found: 1h}
  prefetch: {enabled: false}
- name: hub
  url: http://HUB_ADDR
  hosts: [docker.io]
  prefixes: [hub]
  default_namespace: library
  tags: {fresh: 1h, stale: 24h, not_found: 1h}
  prefetch: {enabled: false}
cache: {directory: CACHE_DIR, min_free_bytes: 0}
`

// startStack starts everything until the test ends. edits are pairs of old and new
// text of the configuration.
func startStack(t testing.TB, dir string, edits ...string) *stack {
	t.Helper()
	return startBefore(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), dir, edits...)
}

// startBefore starts dray before registries that are there already.
func startBefore(t testing.TB, ecr, hub *ecrtest.Running, dir string, edits ...string) *stack {
	t.Helper()
	return startLogging(t, t.Output(), ecr, hub, dir, edits...)
}

// startLogging is startBefore with another place for the log, which gets every line there is.
func startLogging(t testing.TB, log io.Writer, ecr, hub *ecrtest.Running, dir string, edits ...string) *stack {
	t.Helper()
	s, cfg := configured(t, ecr, hub, dir, edits...)
	s.launch(cfg, log)
	return s
}

// configured is a stack that is not started, and what it is configured with.
func configured(t testing.TB, ecr, hub *ecrtest.Running, dir string, edits ...string) (*stack, config.Config) {
	t.Helper()
	s := &stack{TB: t, ecr: ecr, hub: hub}
	setenv(t, "AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
	setenv(t, "AWS_SECRET_ACCESS_KEY", "not-a-secret")
	setenv(t, "AWS_REGION", "eu-west-1")
	setenv(t, "AWS_ENDPOINT_URL_ECR", s.ecr.APIURL)
	setenv(t, "AWS_ENDPOINT_URL_CLOUDWATCH", s.ecr.APIURL)
	setenv(t, "AWS_ENDPOINT_URL_SERVICE_QUOTAS", s.ecr.APIURL) // which does not know what the doctor asks there
	if os.Getenv("AWS_ENDPOINT_URL_STS") == "" {               // a test may have an STS of its own
		setenv(t, "AWS_ENDPOINT_URL_STS", s.ecr.APIURL)
	}
	setenv(t, "AWS_EC2_METADATA_DISABLED", "true")
	standForLayers(t, s.ecr.APIURL)
	s.path = s.file(dir, edits...)
	cfg, err := load(s.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, cfg
}

// standForLayers leads the doctor to a stand-in for the host of the layers of ECR.
func standForLayers(t testing.TB, at string) {
	switch t.(type) {
	case *testing.T, *testing.B: // not for fuzzing, which is parallel
		former := layerHost
		t.Cleanup(func() { layerHost = former })
		layerHost = at
	}
}

func (s *stack) launch(cfg config.Config, log io.Writer) {
	s.Helper()
	var err error
	s.level.Set(slog.LevelDebug)
	source := reload.Source{
		Load:    (&invocation{configPath: s.path}).loadAgain,
		Notices: config.Config.Notices, Level: &s.level,
	}
	s.graph, err = build(s.Context(), cfg, source, slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: &s.level})))
	if err != nil {
		s.Fatal(err)
	}
	s.run()
}

// file writes the configuration and returns its path.
func (s *stack) file(dir string, edits ...string) string {
	s.Helper()
	text := strings.NewReplacer(edits...).Replace(stackConfig)
	text = strings.NewReplacer("ECR_HOST", s.ecr.RegistryHost, "ECR_ADDR", s.ecr.RegistryAddr, "HUB_ADDR", s.hub.RegistryAddr, "CACHE_DIR", dir).Replace(text)
	path := filepath.Join(s.TempDir(), "dray.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.Fatal(err)
	}
	return path
}

func (s *stack) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for name, run := range s.background {
		wg.Go(func() {
			if err := run(ctx); err != nil {
				s.Errorf("%s: %v", name, err)
			}
		})
	}
	front := httptest.NewServer(s.servers[0])
	s.url = front.URL
	s.stop = sync.OnceFunc(func() {
		front.Close()
		cancel()
		wg.Wait()
		if err := s.close(); err != nil {
			s.Error(err)
		}
	})
	s.Cleanup(s.stop)
}

func setenv(t testing.TB, k, v string) {
	switch t.(type) {
	case *testing.T, *testing.B: // not for fuzzing, which is parallel
		t.Setenv(k, v)
	}
}

// got is an answer, read to its end.
type got struct {
	*http.Response
	body []byte
}

// do sends one request to dray. headers are pairs.
func (s *stack) do(method, path string, body []byte, headers ...string) got {
	s.Helper()
	r, err := s.try(method, path, body, headers...)
	if err != nil {
		s.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

func (s *stack) try(method, path string, body []byte, headers ...string) (got, error) {
	req, err := http.NewRequestWithContext(s.Context(), method, s.url+strings.TrimPrefix(path, s.url), bytes.NewReader(body))
	if err != nil {
		return got{}, err
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	client := cmp.Or(s.client, &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }})
	resp, err := client.Do(req)
	if err != nil {
		return got{}, err
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	return got{resp, p}, err
}

// want is do for requests with one right answer.
func (s *stack) want(status int, method, path string, body []byte, headers ...string) got {
	s.Helper()
	r := s.do(method, path, body, headers...)
	if r.StatusCode != status {
		s.Fatalf("%s %s: %s, want %d\n%s", method, path, r.Status, status, r.body)
	}
	return r
}

// upload pushes a blob the way docker does.
func (s *stack) upload(repo string, blob []byte) digest.Digest {
	s.Helper()
	d := digest.FromBytes(blob)
	at := s.want(202, "POST", "/v2/"+repo+"/blobs/uploads/", nil).Header.Get("Location")
	at = s.want(202, "PATCH", at, blob).Header.Get("Location")
	s.want(201, "PUT", at+"?digest="+d.String(), nil)
	return d
}

// push pushes an image of the given layers and returns its manifest.
func (s *stack) push(repo, tag string, layers ...[]byte) *oci.Manifest {
	s.Helper()
	for _, l := range layers {
		s.upload(repo, l)
	}
	m := imageOf(s, layers...)
	s.upload(repo, imageConfig)
	s.want(201, "PUT", "/v2/"+repo+"/manifests/"+tag, m.Raw, "Content-Type", m.MediaType)
	return m
}

var imageConfig = []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`)

func imageOf(t testing.TB, layers ...[]byte) *oci.Manifest {
	t.Helper()
	descs := make([]string, len(layers))
	for i, l := range layers {
		descs[i] = fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}`, digest.FromBytes(l), len(l))
	}
	raw := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[%s]}`,
		oci.MediaTypeOCIManifest, digest.FromBytes(imageConfig), len(imageConfig), strings.Join(descs, ","))
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(raw))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// seeded is an image that a registry has and dray has never seen.
type seeded struct {
	manifest *oci.Manifest
	layer    digest.Digest
}

func seed(t testing.TB, r *ecrtest.Running, repo, tag string, layerBytes int64) seeded {
	t.Helper()
	d, err := r.Seed(ecrtest.SeedImage{Repository: repo, Tag: tag, LayerBytes: layerBytes})
	if err != nil {
		t.Fatal(err)
	}
	img, _ := r.Image(repo, d.String())
	m, err := oci.ParseManifest(img.MediaType, img.Raw)
	if err != nil {
		t.Fatal(err)
	}
	return seeded{m, m.Layers[0].Digest}
}

// spent compares the requests that a registry got, by kind, with the budget, and
// forgets them.
func spent(t testing.TB, r *ecrtest.Running, want map[ecrtest.Kind]int64) {
	t.Helper()
	<-r.Idle()
	have := map[ecrtest.Kind]int64{}
	for k, c := range r.Counters() {
		if c.Requests > 0 {
			have[k] = c.Requests
		}
	}
	if fmt.Sprint(have) != fmt.Sprint(want) {
		t.Errorf("the upstream got %v, want %v\n%s", have, want, strings.Join(r.Sequence(), "\n"))
	}
	r.ResetCounters()
}

// pushDirectly brings an image of one layer to a fake ECR without dray.
func pushDirectly(t testing.TB, r *ecrtest.Running, repo, tag string, layer []byte) *oci.Manifest {
	t.Helper()
	r.CreateRepository(repo)
	m := imageOf(t, layer)
	putDirectly(t, r, repo, tag, m, imageConfig, layer)
	return m
}

// putDirectly brings a manifest and its blobs to a repository of a fake ECR without dray, and
// forgets the requests that this takes.
func putDirectly(t testing.TB, r *ecrtest.Running, repo, reference string, m *oci.Manifest, blobs ...[]byte) {
	t.Helper()
	send := func(method, at string, body []byte, mediaType string) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), method, at, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("AWS", r.Token(""))
		req.Header.Set("Content-Type", mediaType)
		req.Host = r.HostName()
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, at, resp.Status)
		}
		return resp
	}
	for _, blob := range blobs {
		resp := send("POST", r.RegistryURL+"/v2/"+repo+"/blobs/uploads/", nil, "")
		at, err := resp.Location()
		if err != nil {
			t.Fatal(err)
		}
		send("PUT", r.RegistryURL+at.Path+"?digest="+digest.FromBytes(blob).String(), blob, "application/octet-stream")
	}
	send("PUT", r.RegistryURL+"/v2/"+repo+"/manifests/"+reference, m.Raw, m.MediaType)
	r.ResetCounters()
}
