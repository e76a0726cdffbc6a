package upstream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/ecr"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

const (
	start = "POST /v2/aa/blobs/uploads/"
	patch = "PATCH /v2/aa/blobs/uploads/*"
	put   = "PUT /v2/aa/blobs/uploads/*?digest="
)

// TestBudgets has the exact requests to the registry of each operation.
func TestBudgets(t *testing.T) {
	r := startECR(t, ecrtest.Options{})
	r.CreateRepository("aa")
	img := upstreamtest.NewImage(t, "aa", 1000)
	layer, config := digest.FromBytes(img.Layer), digest.FromBytes(img.Config)
	expect := func(want ...string) { t.Helper(); r.recorder.Expect(t, want...) }

	img.Push(t, r.client, "aa", "t")
	expect(start, patch, put+config.String(), start, patch, put+layer.String(), "PUT /v2/aa/manifests/t")
	if _, err := r.client.PutManifest(t.Context(), upstream.Repo{Name: "aa"}, tag, img.Manifest); err != nil {
		t.Error(err)
	}
	expect("PUT /v2/aa/manifests/t")
	if ok, err := r.client.Mount(t.Context(), upstream.Repo{Name: "aa"}, "b", layer); ok || err != nil { // off unless the account turns it on
		t.Errorf("Mount = %v, %v", ok, err)
	}
	expect("POST /v2/aa/blobs/uploads/?from=b&mount=" + layer.String())
	if _, err := r.client.Manifest(t.Context(), upstream.Repo{Name: "aa"}, tag, upstreamtest.ManifestTypes()); err != nil {
		t.Error(err)
	}
	expect("GET /v2/aa/manifests/t")
	if _, err := r.client.StatManifest(t.Context(), upstream.Repo{Name: "aa"}, tag, upstreamtest.ManifestTypes()); err != nil {
		t.Error(err)
	}
	expect("HEAD /v2/aa/manifests/t")
	for _, from := range []int64{0, 10} {
		readAll(t, r.client, "aa", layer, from, img.Layer)
		expect("GET /v2/aa/blobs/"+layer.String(), "GET elsewhere")
	}
	if size, err := r.client.StatBlob(t.Context(), upstream.Repo{Name: "aa"}, layer); size != 1000 || err != nil {
		t.Errorf("StatBlob = %d, %v", size, err)
	}
	expect("HEAD /v2/aa/blobs/" + layer.String())
	if n := r.Count("GetAuthorizationToken"); n != 1 {
		t.Errorf("%d calls of GetAuthorizationToken, want 1", n)
	}
}

func readAll(t *testing.T, c upstream.Source, repo string, d digest.Digest, from int64, want []byte) {
	t.Helper()
	s, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: repo}, Digest: d, From: from})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Body.Close()
	if got, err := io.ReadAll(s.Body); err != nil || !bytes.Equal(got, want[from:]) {
		t.Errorf("%d bytes, %v; want %d", len(got), err, len(want[from:]))
	}
}

func TestBudgetOfFirstPush(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		t.Run(fmt.Sprintf("hangs up %v", hangsUp), func(t *testing.T) {
			sw := ecrtest.DefaultSwitches()
			sw.MissingRepositoryHangsUp, sw.CreationDelay = hangsUp, 0
			r := startECR(t, ecrtest.Options{Switches: &sw})
			var wg sync.WaitGroup
			want := []string{start} // the refused one
			for i := range 4 {
				p := fmt.Appendf(nil, "layer %d", i)
				want = append(want, start, patch, put+digest.FromBytes(p).String())
				wg.Go(func() {
					if err := r.sink.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload(p)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			r.recorder.ExpectSet(t, want...)
			if n := r.Count("CreateRepository"); n != 1 {
				t.Errorf("%d calls of CreateRepository, want 1", n)
			}
		})
	}
}

// ECR finds a repository only a while after it was created: one write asks again until then.
func TestFirstPushBeforeTheRepositoryIsFound(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		sw := ecrtest.DefaultSwitches()
		sw.MissingRepositoryHangsUp, sw.CreationDelay = hangsUp, 600*time.Millisecond
		r := startECR(t, ecrtest.Options{Switches: &sw})
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if err := r.sink.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload(fmt.Appendf(nil, "layer %d", i))); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := r.Count("CreateRepository"); n != 1 {
			t.Errorf("hangs up %v: %d calls of CreateRepository, want 1", hangsUp, n)
		}
		if n := r.Count(ecrtest.KindUploadStart) - 4; n < 2 || n > 6 && !hangsUp {
			t.Errorf("hangs up %v: %d starts before the repository was found", hangsUp, n)
		}
	}
}

func TestMissingRepositoryWithoutCreator(t *testing.T) {
	for _, hangsUp := range []bool{false, true} {
		sw := ecrtest.DefaultSwitches()
		sw.MissingRepositoryHangsUp = hangsUp
		r := startECR(t, ecrtest.Options{Switches: &sw})
		err := r.client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload([]byte("x")))
		if !errors.Is(err, upstream.ErrRepositoryMissing) || errors.Is(err, upstream.ErrUnreachable) != hangsUp {
			t.Errorf("hangs up %v: %v, want ErrRepositoryMissing", hangsUp, err)
		}
		if !hangsUp && (!errors.Is(err, oci.ErrNameUnknown) || !strings.Contains(err.Error(), "does not exist in the registry")) {
			t.Errorf("the registry's text is lost: %v", err)
		}
		if hangsUp == (status(err) == http.StatusNotFound) {
			t.Errorf("hangs up %v: status %d", hangsUp, status(err))
		}
	}
}

// TestUploadFaults arms one fault each, and expects the blob at the registry nevertheless.
func TestUploadFaults(t *testing.T) {
	p := upstreamtest.NewImage(t, "x", 400_000).Layer
	d := digest.FromBytes(p).String()
	fresh := []string{start, patch, put + d}
	head := "HEAD /v2/aa/blobs/" + d
	for name, c := range map[string]struct {
		fault ecrtest.Fault
		want  []string
	}{
		"start fails":      {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Status: 500}, slices.Concat([]string{start}, fresh)},
		"start throttled":  {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Status: 429, Count: 2}, slices.Concat([]string{start, start}, fresh)},
		"asked to wait":    {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Status: 429, RetryAfter: time.Second}, slices.Concat([]string{start}, fresh)},
		"bytes refused":    {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, Status: 503}, slices.Concat([]string{start, patch}, fresh)},
		"cut while sent":   {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, CutRequestAt: ecrtest.At(200_000)}, slices.Concat([]string{start, patch}, fresh)},
		"answer lost":      {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, DropAnswer: true}, slices.Concat([]string{start, patch}, fresh)},
		"session lost":     {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPatch}, Status: 404, Code: "BLOB_UPLOAD_UNKNOWN"}, slices.Concat([]string{start, patch}, fresh)},
		"closing fails":    {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPut}, Status: 500}, slices.Concat([]string{start, patch, put + d, head}, fresh)},
		"closed, not told": {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPut}, DropAnswer: true}, []string{start, patch, put + d, head}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // what takes time is the pause before a repetition
			r := startECR(t, ecrtest.Options{})
			r.CreateRepository("aa")
			r.AddFault(c.fault)
			u := upstreamtest.Stream(p)
			accepted := 0
			u.Accepted = func() { accepted++ }
			if err := r.client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, u); err != nil {
				t.Fatal(err)
			}
			if !r.HasBlob("aa", digest.Digest(d)) {
				t.Error("the blob is not there")
			}
			r.recorder.Expect(t, c.want...)
			if want := strings.Count(strings.Join(c.want, " "), "PATCH"); accepted != want {
				t.Errorf("Accepted was called %d times, want %d", accepted, want)
			}
		})
	}
}

func TestUploadGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		fault ecrtest.Fault
		want  error
		most  int // requests
	}{
		"always failing":   {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Status: 503, Count: -1}, oci.ErrUnknown, 5},
		"always restarted": {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadPut}, Status: 400, Code: "BLOB_UPLOAD_INVALID", Count: -1}, oci.ErrBlobUploadInvalid, 6},
		"denied":           {ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindUploadStart}, Status: 403, Code: "DENIED", Count: -1}, oci.ErrDenied, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // what takes time is the pause before a repetition
			r := startECR(t, ecrtest.Options{})
			r.CreateRepository("aa")
			r.AddFault(c.fault)
			if err := r.client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload([]byte("x"))); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if lines := r.recorder.Take(); len(lines) > c.most {
				t.Errorf("%d requests, want at most %d: %v", len(lines), c.most, lines)
			}
		})
	}
}

// TestNothingCompletesUnverified looks at the moment when Digest is asked and has not returned.
func TestNothingCompletesUnverified(t *testing.T) {
	p := []byte(strings.Repeat("layer", 100_000))
	var received, completed atomic.Int64
	r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		received.Add(n)
		if r.Method == http.MethodPut {
			completed.Store(received.Load())
		}
		w.Header().Set("Location", "/v2/aa/blobs/uploads/1")
		w.WriteHeader(map[string]int{http.MethodPost: 202, http.MethodPatch: 201, http.MethodPut: 201}[r.Method])
	}))
	u := upstreamtest.Upload(p)
	asked, verified := make(chan bool), make(chan bool)
	u.Digest = func() (digest.Digest, error) {
		asked <- true
		<-verified
		return digest.FromBytes(p), nil
	}
	done := make(chan error, 1)
	go func() {
		done <- r.Client(t, upstream.Quirks{}).PutBlob(t.Context(), upstream.Repo{Name: "aa"}, u)
	}()
	<-asked
	if n := completed.Load(); n != 0 {
		t.Errorf("completed with %d bytes before they were verified", n)
	}
	close(verified)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := completed.Load(); n != int64(len(p)) {
		t.Errorf("completed with %d bytes of %d", n, len(p))
	}
	r.Recorder.Expect(t, start, patch, put+digest.FromBytes(p).String())
}

func TestAbandonedSessions(t *testing.T) {
	cause := errors.New("client left")
	u := upstreamtest.Stream([]byte("x"))
	u.Digest = func() (digest.Digest, error) { return "", cause }
	for _, none := range []bool{false, true} {
		r := upstreamtest.NewRegistry(t)
		if err := r.Client(t, upstream.Quirks{NoUploadCancel: none}).PutBlob(t.Context(), upstream.Repo{Name: "aa"}, u); !errors.Is(err, cause) {
			t.Error(err)
		}
		want := []string{start, patch}
		if !none {
			want = append(want, "DELETE /v2/aa/blobs/uploads/*")
		}
		r.Recorder.Expect(t, want...)
	}
}

func TestCancelledUpload(t *testing.T) {
	r := upstreamtest.NewRegistry(t)
	ctx, cancel := context.WithCancel(t.Context())
	pr, pw := io.Pipe()
	u := upstream.Upload{Open: func() (io.ReadCloser, error) { return pr, nil }, Size: -1, Accepted: cancel}
	err := r.Client(t, upstream.Quirks{}).PutBlob(ctx, upstream.Repo{Name: "aa"}, u)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := pw.Write([]byte("x")); err == nil {
		t.Error("the body was not closed")
	}
	lines := r.Recorder.Take()
	if len(lines) == 0 || lines[len(lines)-1] != "DELETE /v2/aa/blobs/uploads/*" {
		t.Errorf("requests %q, want the session cancelled", lines)
	}
}

func TestEmptyBlob(t *testing.T) {
	r := startECR(t, ecrtest.Options{})
	r.CreateRepository("aa")
	for name, u := range map[string]upstream.Upload{"known": upstreamtest.Upload(nil), "stream": upstreamtest.Stream(nil)} {
		err := r.client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, u)
		if s := status(err); s < 400 || s >= 500 || !strings.Contains(err.Error(), "empty layers") {
			t.Errorf("%s: %v (%d), want a clear refusal with 4xx", name, err, s)
		}
		if lines := r.recorder.Take(); name == "known" && len(lines) != 0 || len(lines) > 2 {
			t.Errorf("%s: requests %q", name, lines)
		}
	}
	plain := upstreamtest.NewRegistry(t).Client(t, upstream.Quirks{})
	for name, u := range map[string]upstream.Upload{"known": upstreamtest.Upload(nil), "stream": upstreamtest.Stream(nil)} {
		if err := plain.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, u); err != nil {
			t.Errorf("%s at a registry that takes them: %v", name, err)
		}
	}
	if size, err := plain.StatBlob(t.Context(), upstream.Repo{Name: "aa"}, digest.FromBytes(nil)); size != 0 || err != nil {
		t.Errorf("StatBlob of nothing = %d, %v", size, err)
	}
}

func TestImmutableTag(t *testing.T) {
	const refusal = "The image tag 't' already exists in the 'aa' repository and cannot be overwritten because the tag is immutable."
	held, other := upstreamtest.NewImage(t, "held", 10), upstreamtest.NewImage(t, "other", 10)
	for name, c := range map[string]struct {
		img    upstreamtest.Image
		quirks upstream.Quirks
		ok     bool
		want   []string
	}{
		"the same":      {held, ecr.Private(), true, []string{"PUT /v2/aa/manifests/t", "HEAD /v2/aa/manifests/t"}},
		"another":       {other, ecr.Private(), false, []string{"PUT /v2/aa/manifests/t", "HEAD /v2/aa/manifests/t"}},
		"no such quirk": {held, upstream.Quirks{}, false, []string{"PUT /v2/aa/manifests/t"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPut {
					wire(w, http.StatusBadRequest, "TAG_INVALID", refusal)
					return
				}
				w.Header().Set("Content-Type", held.Manifest.MediaType)
				w.Header().Set("Docker-Content-Digest", held.Manifest.Digest.String())
				w.Header().Set("Content-Length", fmt.Sprint(len(held.Manifest.Raw)))
			}))
			p, err := r.Client(t, c.quirks).PutManifest(t.Context(), upstream.Repo{Name: "aa"}, tag, c.img.Manifest)
			if (err == nil) != c.ok {
				t.Fatalf("got %v", err)
			}
			r.Recorder.Expect(t, c.want...)
			if c.ok && p.Digest != held.Manifest.Digest {
				t.Errorf("pushed %s", p.Digest)
			}
			if name == "another" && (!errors.Is(err, oci.ErrTagInvalid) || !strings.Contains(err.Error(), held.Manifest.Digest.String()) ||
				!strings.Contains(err.Error(), other.Manifest.Digest.String()) || !strings.Contains(err.Error(), "is immutable")) {
				t.Errorf("not clear: %v", err)
			}
		})
	}
}

func TestManifestPut(t *testing.T) {
	img := upstreamtest.NewImage(t, "x", 10)
	subject := digest.FromString("subject")
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   error
		text   string
		count  int
	}{
		"bare 201": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) }, nil, "", 1},
		"other digest": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Docker-Content-Digest", subject.String())
			w.WriteHeader(201)
		}, upstream.ErrCorrupt, "", 1},
		"405": {func(w http.ResponseWriter, _ *http.Request) {
			wire(w, 405, "UNSUPPORTED", "Invalid parameter at 'ImageManifest'")
		}, oci.ErrUnsupported, "Invalid parameter at 'ImageManifest'. Amazon ECR answers this", 1},
		"missing layers":                     {func(w http.ResponseWriter, _ *http.Request) { wire(w, 404, "MANIFEST_BLOB_UNKNOWN", "x") }, oci.ErrManifestBlobUnknown, "", 1},
		"missing layers, and no such upload": {func(w http.ResponseWriter, _ *http.Request) { wire(w, 404, "BLOB_UPLOAD_UNKNOWN", "x") }, upstream.ErrPartsMissing, "", 1},
		"missing layers, by the text": {func(w http.ResponseWriter, _ *http.Request) {
			wire(w, 400, "NEW", "Layers with digests '[x]' required")
		}, upstream.ErrPartsMissing, "", 1},
		"no repository": {func(w http.ResponseWriter, _ *http.Request) { wire(w, 404, "NAME_UNKNOWN", "x") }, upstream.ErrRepositoryMissing, "", 1},
		"never":         {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, oci.ErrUnknown, "", 2},
	} {
		t.Run(name, func(t *testing.T) {
			r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				if !bytes.Equal(body, img.Manifest.Raw) || r.Header.Get("Content-Type") != img.Manifest.MediaType || r.ContentLength != int64(len(body)) {
					t.Errorf("got %d bytes of %q, length %d", len(body), r.Header.Get("Content-Type"), r.ContentLength)
				}
				if r.Header.Get("Idempotency-Key") != "" {
					t.Error("Idempotency-Key was sent")
				}
				c.answer(w, r)
			}))
			client := upstreamtest.NewClient(t, upstream.Options{Base: r.URL, Quirks: ecr.Private(), WriteAttempts: 2})
			_, err := client.PutManifest(t.Context(), upstream.Repo{Name: "aa"}, tag, img.Manifest)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if n := len(r.Recorder.Take()); n != c.count {
				t.Errorf("%d requests, want %d", n, c.count)
			}
		})
	}

	throttled := 2
	_, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if throttled--; throttled >= 0 {
			wire(w, 429, "TOOMANYREQUESTS", "Rate exceeded")
			return
		}
		w.Header().Set("OCI-Subject", subject.String())
		w.WriteHeader(201)
	})
	if p, err := client.PutManifest(t.Context(), upstream.Repo{Name: "aa"}, tag, img.Manifest); err != nil || p.Subject != subject {
		t.Errorf("throttled, then accepted: %+v, %v", p, err)
	}
}

// TestAttemptsAreNumbered: the log has the number of each attempt at a write.
func TestAttemptsAreNumbered(t *testing.T) {
	img := upstreamtest.NewImage(t, "x", 10)
	repo := upstream.Repo{Name: "aa"}
	for name, write := range map[string]func(*upstream.Client) error{
		"manifest": func(c *upstream.Client) error {
			_, err := c.PutManifest(t.Context(), repo, tag, img.Manifest)
			return err
		},
		"blob":     func(c *upstream.Client) error { return c.PutBlob(t.Context(), repo, upstreamtest.Upload([]byte("x"))) },
		"deletion": func(c *upstream.Client) error { return c.DeleteManifest(t.Context(), repo, tag) },
	} {
		r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
		var log bytes.Buffer
		client := upstreamtest.NewClient(t, upstream.Options{Base: r.URL, WriteAttempts: 2,
			Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		if err := write(client); err == nil {
			t.Errorf("%s: accepted", name)
		}
		var attempts []string
		for line := range strings.Lines(log.String()) {
			if _, after, ok := strings.Cut(line, "attempt="); ok && strings.Contains(line, `msg="upstream request"`) {
				attempts = append(attempts, after[:1])
			}
		}
		if !slices.Equal(attempts, []string{"1", "2"}) {
			t.Errorf("%s: attempts %q in the log\n%s", name, attempts, log.String())
		}
	}
}

// A manifest that ECR refuses without a reason comes back with advice that fits it.
func TestUnsupportedManifests(t *testing.T) {
	const cache, attestation = "image-manifest=true", "oci-artifact=false"
	config := `{"mediaType":"` + oci.MediaTypeOCIConfig + `","digest":"` + blob.String() + `","size":2%s}`
	for name, c := range map[string]struct {
		raw    string
		status int
		advice string // the only one; "" if there is none
		any    bool   // ECR's habit is explained
	}{
		"image":                        {`{"schemaVersion":2,"config":` + fmt.Sprintf(config, "") + `,"layers":[]}`, 405, "", true},
		"image, refused otherwise":     {`{"schemaVersion":2,"config":` + fmt.Sprintf(config, "") + `,"layers":[]}`, 400, "", false},
		"attestation as an artifact":   {`{"schemaVersion":2,"config":` + fmt.Sprintf(config, `,"data":"e30="`) + `,"layers":[]}`, 405, attestation, true},
		"build cache":                  {`{"schemaVersion":2,"config":{"mediaType":"` + oci.MediaTypeBuildKitCache + `","digest":"` + blob.String() + `","size":2},"layers":[]}`, 405, cache, true},
		"build cache as an index":      {`{"schemaVersion":2,"manifests":[` + fmt.Sprintf(config, "") + `]}`, 405, cache, true},
		"such an index, other refusal": {`{"schemaVersion":2,"manifests":[` + fmt.Sprintf(config, "") + `]}`, 400, cache, true},
	} {
		m, err := oci.ParseManifest("", []byte(c.raw))
		if err != nil {
			t.Fatal(err)
		}
		r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { wire(w, c.status, "UNSUPPORTED", "Invalid parameter.") }))
		client := upstreamtest.NewClient(t, upstream.Options{Base: r.URL, Quirks: ecr.Private()})
		_, err = client.PutManifest(t.Context(), upstream.Repo{Name: "aa"}, tag, m)
		e, ok := errors.AsType[*oci.Error](err)
		if !ok || e.Status != c.status || strings.Contains(e.Message, "Invalid parameter. Amazon ECR answers this") != c.any {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, advice := range []string{cache, attestation} {
			if strings.Contains(e.Message, advice) != (advice == c.advice) {
				t.Errorf("%s: %s", name, e.Message)
			}
		}
	}
}

// A mount names two repositories. A 404 concerns the target only if its code is that of
// repositories, and the refusal keeps its code.
func TestRefusedMount(t *testing.T) {
	for code, missing := range map[string]bool{"NAME_UNKNOWN": true, "BLOB_UNKNOWN": false, "MANIFEST_UNKNOWN": false, "": false} {
		r, client := serve(t, func(w http.ResponseWriter, _ *http.Request) { wire(w, 404, code, "there is none") })
		ok, err := client.Mount(t.Context(), upstream.Repo{Name: "aa"}, "b", blob)
		e, wire := errors.AsType[*oci.Error](err)
		if ok || !wire || code != "" && e.Code != code || e.Status != 404 || errors.Is(err, upstream.ErrRepositoryMissing) != missing {
			t.Errorf("%s: %v, %v", code, ok, err)
		}
		if lines := r.Recorder.Take(); len(lines) != 1 {
			t.Errorf("%s: requests %q", code, lines)
		}
		if err := client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload([]byte("x"))); !errors.Is(err, upstream.ErrRepositoryMissing) {
			t.Errorf("an upload, %s: %v", code, err)
		}
	}
}

// TestStaleConnection has a registry that closes an idle connection just when it is used again.
func TestStaleConnection(t *testing.T) {
	var n atomic.Int64 // the third request can begin before the handler of the second has ended
	r, client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 2 {
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusCreated)
	})
	for range 2 {
		if ok, err := client.Mount(t.Context(), upstream.Repo{Name: "aa"}, "b", blob); !ok || err != nil {
			t.Errorf("Mount = %v, %v", ok, err)
		}
	}
	if lines := r.Recorder.Take(); len(lines) != 3 {
		t.Errorf("requests %q, want the second one twice", lines)
	}
}

// TestLocations has every form in which a registry names an upload session.
func TestLocations(t *testing.T) {
	for name, c := range map[string]struct {
		base, host string // of the client; base is added to the server's URL
		location   func(server *url.URL) string
		want       string // path and query of the PATCH
	}{
		"path":                    {"", "", func(*url.URL) string { return "/v2/aa/blobs/uploads/1?_state=x%3D" }, "/v2/aa/blobs/uploads/1?_state=x%3D"},
		"relative":                {"", "", func(*url.URL) string { return "1" }, "/v2/aa/blobs/uploads/1"},
		"absolute":                {"", "", func(u *url.URL) string { return u.String() + "/up/1" }, "/up/1"},
		"own name":                {"", "real.name", func(*url.URL) string { return "https://real.name/v2/aa/blobs/uploads/1" }, "/v2/aa/blobs/uploads/1"},
		"own name, port":          {"", "real.name", func(*url.URL) string { return "https://REAL.name:443/v2/aa/blobs/uploads/1" }, "/v2/aa/blobs/uploads/1"},
		"below a path":            {"/ecr", "real.name", func(*url.URL) string { return "https://real.name/v2/aa/blobs/uploads/1" }, "/ecr/v2/aa/blobs/uploads/1"},
		"below a path, by path":   {"/ecr", "", func(*url.URL) string { return "/v2/aa/blobs/uploads/1?a=%2F" }, "/ecr/v2/aa/blobs/uploads/1?a=%2F"},
		"below a path, elsewhere": {"/ecr", "", func(*url.URL) string { return "/storage/v2/1" }, "/storage/v2/1"},
		"below a path, there":     {"/ecr", "real.name", func(*url.URL) string { return "https://real.name/ecr/v2/aa/blobs/uploads/1" }, "/ecr/v2/aa/blobs/uploads/1"},
	} {
		t.Run(name, func(t *testing.T) {
			var lines []string
			var server *url.URL
			r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				lines = append(lines, r.Method+" "+r.URL.RequestURI())
				if c.host != "" && r.Host != c.host {
					t.Errorf("Host %q", r.Host)
				}
				if r.Method == http.MethodPost {
					w.Header().Set("Location", c.location(server))
					w.WriteHeader(202)
				} else {
					w.WriteHeader(201)
				}
			}))
			server = r.URL
			client := upstreamtest.NewClient(t, upstream.Options{Base: parse(t, r.URL.String()+c.base), Host: c.host})
			if err := client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload([]byte(text))); err != nil {
				t.Fatal(err)
			}
			sep := "?"
			if strings.Contains(c.want, "?") {
				sep = "&"
			}
			want := []string{"POST " + c.base + "/v2/aa/blobs/uploads/", "PATCH " + c.want, "PUT " + c.want + sep + "digest=" + url.QueryEscape(blob.String())}
			if !slices.Equal(lines, want) {
				t.Errorf("requests %q, want %q", lines, want)
			}
		})
	}
	_, client := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(202) })
	if err := client.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload([]byte(text))); !errors.Is(err, upstream.ErrCorrupt) {
		t.Errorf("no location: %v", err)
	}
}

func TestDeniedPush(t *testing.T) {
	r := startECR(t, ecrtest.Options{})
	r.CreateRepository("aa")
	r.SetDenials(ecrtest.Denial{Action: "ecr:InitiateLayerUpload"})
	err := r.sink.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, upstreamtest.Upload([]byte("x")))
	if !errors.Is(err, oci.ErrDenied) || errors.Is(err, upstream.ErrCredentials) || !strings.Contains(err.Error(), "is not authorized to perform: ecr:InitiateLayerUpload") {
		t.Errorf("got %v, want the text of IAM", err)
	}
	r.recorder.Expect(t, start)
}
