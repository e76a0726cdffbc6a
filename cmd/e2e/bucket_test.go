package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

// sharedBucket is a bucket in a real S3, behind a proxy that may misbehave.
type sharedBucket struct {
	endpoint string // of the proxy
	dir      string // has the objects
	// fault, if it returns true, has answered a request in place of the store.
	fault atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
	// alter, if not nil, changes the answers of the store.
	alter atomic.Pointer[func(*http.Response) error]
}

// startBucket runs versitygw with an empty bucket. It checks signatures.
func startBucket(t testing.TB, ip string) *sharedBucket {
	t.Helper()
	program, dir := need(t, "versitygw"), shortDir(t)
	b := &sharedBucket{dir: filepath.Join(dir, "objects", "shared")}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	at := net.JoinHostPort(ip, "7070")
	store := start(t, "versitygw", environment(), program, "--port", at, "--access", "AKIAIOSFODNN7EXAMPLE", "--secret", "example",
		"--region", "eu-west-1", "--quiet", "--keep-alive", "posix", filepath.Join(dir, "objects"))
	store.await(at, func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", at)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	proxy := &httputil.ReverseProxy{
		ErrorLog: log.New(io.Discard, "", 0),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: at})
			r.Out.Host = r.In.Host // which is signed
		},
		ModifyResponse: func(r *http.Response) error {
			if alter := b.alter.Load(); alter != nil {
				return (*alter)(r)
			}
			return nil
		},
	}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fault := b.fault.Load(); fault != nil && (*fault)(w, r) {
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	b.endpoint = front.URL
	return b
}

func (b *sharedBucket) configure(config map[string]any) {
	config["bucket"] = map[string]any{"url": "s3://shared/e2e", "endpoint": b.endpoint, "path_style": true, "region": "eu-west-1", "timeout": "10s"}
}

// await waits until the bucket has n objects of the cache.
func (b *sharedBucket) await(t *testing.T, n int) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		objects, err := filepath.Glob(filepath.Join(b.dir, "e2e", "cache", "sha256", "*"))
		if err != nil {
			t.Fatal(err)
		}
		if len(objects) == n {
			return
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("the bucket has %d objects, want %d", len(objects), n)
		}
	}
}

// emptied starts a second dray with an empty disk before the registries of the first.
func (s *stack) emptied(t *testing.T, configure func(map[string]any)) *stack {
	t.Helper()
	other := s.sibling(t)
	other.configure(stackOptions{configure: configure})
	other.start()
	s.ecr.ResetCounters()
	return other
}

// sibling returns a second dray with an empty disk before the registries of the first. It does not
// run, and has no configuration.
func (s *stack) sibling(t *testing.T) *stack {
	t.Helper()
	other := *s
	other.t, other.dir, other.ip = t, shortDir(t), nextIP()
	other.cache = filepath.Join(other.dir, "cache")
	return &other
}

// bytesFrom is how many bytes of blobs and manifests the registry has sent.
func bytesFrom(d *double) int64 {
	counters := d.Counters()
	return counters[ecrtest.KindBlobGet].BytesOut + counters[ecrtest.KindObjectGet].BytesOut + counters[ecrtest.KindManifestGet].BytesOut
}

func TestBucket(t *testing.T) {
	s := newStack(t, stackOptions{stopped: true})
	bucket := startBucket(t, s.ip)
	s.configure(stackOptions{configure: bucket.configure})
	s.start()
	if _, err := s.ecr.Seed(ecrtest.SeedImage{Repository: "team/app", Tag: "v1", Layers: 4, LayerBytes: 20 << 20}); err != nil {
		t.Fatal(err)
	}
	s.sameBytes(t, "team/app:v1")
	bucket.await(t, 6) // the layers, the configuration and the manifest

	t.Run("setup", func(t *testing.T) { // the store checks the signatures, and knows neither setting
		env := environment(append(s.ecr.awsEnvironment(), "HOME="+s.dir)...)
		for _, mode := range []string{"--check", "--check=false"} {
			out := run(t, env, built.dray, "setup", "bucket", "--config", s.configFile, mode)
			if want := "unsupported: the lifecycle deletes objects below e2e/cache/ after 30 days, and parts of uploads that were given up\nunsupported: all public access is blocked"; out != want {
				t.Errorf("%s: %s", mode, out)
			}
		}
		bad := environment("HOME="+s.dir, "AWS_ACCESS_KEY_ID=unknown", "AWS_SECRET_ACCESS_KEY=wrong")
		if out, err := try(t, bad, built.dray, "setup", "bucket", "--config", s.configFile, "--check"); err == nil {
			t.Errorf("with wrong credentials: %s", out)
		}
	})
	t.Run("emptied", func(t *testing.T) {
		for range 2 {
			other := s.emptied(t, bucket.configure)
			manifest, content := pullThrough(t, other)
			if n := bytesFrom(s.ecr); n > 0 || len(content) != 4 || len(manifest) == 0 {
				t.Errorf("an emptied mirror got %d layers, and %d bytes from the registry", len(content), n)
			}
		}
	})
	refuse := func(status int, code string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
			return true
		}
	}
	for name, fault := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"slow down": refuse(503, "SlowDown"), "refusing": refuse(403, "AccessDenied"), "full": refuse(507, "QuotaExceeded"),
		"black hole": func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"cut": func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "begin")
			panic(http.ErrAbortHandler)
		},
	} {
		t.Run(name, func(t *testing.T) {
			bucket.fault.Store(&fault)
			defer bucket.fault.Store(nil)
			other := s.emptied(t, func(config map[string]any) {
				bucket.configure(config)
				config["bucket"].(map[string]any)["timeout"] = "300ms"
			})
			pullThrough(t, other)
			if bytesFrom(s.ecr) == 0 {
				t.Error("the registry was not asked")
			}
		})
	}
	t.Run("half a body", func(t *testing.T) {
		alter := func(r *http.Response) error {
			if r.Request.Method == http.MethodGet && r.ContentLength > 1<<20 {
				r.Body = struct {
					io.Reader
					io.Closer
				}{io.MultiReader(io.LimitReader(r.Body, r.ContentLength/2), broken{}), r.Body}
			}
			return nil
		}
		bucket.alter.Store(&alter)
		defer bucket.alter.Store(nil)
		pullThrough(t, s.emptied(t, bucket.configure))
	})
	t.Run("slow", func(t *testing.T) {
		alter := func(r *http.Response) error {
			r.Body = struct {
				io.Reader
				io.Closer
			}{slow{r.Body}, r.Body}
			return nil
		}
		bucket.alter.Store(&alter)
		defer bucket.alter.Store(nil)
		pullThrough(t, s.emptied(t, func(config map[string]any) {
			bucket.configure(config)
			config["bucket"].(map[string]any)["timeout"] = "300ms"
		}))
		if bytesFrom(s.ecr) == 0 {
			t.Error("the registry was not asked")
		}
	})
	t.Run("wrong bytes", func(t *testing.T) {
		alter := func(r *http.Response) error {
			if r.Request.Method == http.MethodGet {
				p, err := io.ReadAll(r.Body)
				if err != nil {
					return err
				}
				if len(p) > 0 {
					p[len(p)-1]++ // the byte that dray withholds until it has verified the whole
				}
				r.Body = io.NopCloser(bytes.NewReader(p))
			}
			return nil
		}
		bucket.alter.Store(&alter)
		defer bucket.alter.Store(nil)
		pullThrough(t, s.emptied(t, bucket.configure))
		if bytesFrom(s.ecr) < 4*20<<20 {
			t.Error("the registry did not send all layers")
		}
	})
}

// broken is the end of a body that breaks off.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// slow gives 20 kB a second.
type slow struct{ io.Reader }

func (s slow) Read(p []byte) (int, error) {
	time.Sleep(50 * time.Millisecond)
	return s.Reader.Read(p[:min(len(p), 1000)])
}

// pullThrough pulls the image of TestBucket by a client that verifies it and never tries again.
func pullThrough(t *testing.T, s *stack) (manifest []byte, content map[string]int64) {
	t.Helper()
	ref, options := s.registry(t, "team/app:v1")
	return blobs(t, ref, options)
}
