package upstream_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

const text = "0123456789"

var (
	blob = digest.FromString(text)
	tag  = oci.Reference{Tag: "t"}
)

// serve is a registry of one handler.
func serve(t *testing.T, h http.HandlerFunc) (*upstreamtest.Registry, *upstream.Client) {
	t.Helper()
	r := upstreamtest.Serve(t, h)
	return r, upstreamtest.NewClient(t, upstream.Options{Name: "up", Base: r.URL})
}

func wire(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func status(err error) int {
	if e, ok := errors.AsType[*oci.Error](err); ok {
		return e.Status
	}
	return 0
}

func TestRedirectGoesWithoutCredentials(t *testing.T) {
	var seen http.Header
	storage := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
	}))
	r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Basic secret" || r.Host != "real.name" {
			t.Errorf("the registry got %q for host %q", r.Header.Get("Authorization"), r.Host)
		}
		http.SetCookie(w, &http.Cookie{Name: "session", Value: "secret"})
		http.Redirect(w, r, storage.URL.String()+"/signed?sig=1", http.StatusTemporaryRedirect)
	}))
	plain := upstream.NewTransport(upstream.TransportOptions{})
	t.Cleanup(plain.CloseIdleConnections)
	c := upstreamtest.NewClient(t, upstream.Options{Base: r.URL, Host: "real.name", Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.URL.Host == r.URL.Host {
			req = req.Clone(req.Context())
			req.Header.Set("Authorization", "Basic secret")
		}
		return plain.RoundTrip(req)
	})})
	s, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob, From: 4})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Body.Close()
	if got, err := io.ReadAll(s.Body); string(got) != text[4:] || err != nil || s.Size != 10 || !s.Ranges {
		t.Errorf("got %q, %v, size %d, ranges %v", got, err, s.Size, s.Ranges)
	}
	if seen.Get("Range") != "bytes=4-" || seen.Get("Accept-Encoding") != "identity" || len(seen.Values("Authorization"))+len(seen.Values("Cookie"))+len(seen.Values("Referer")) != 0 {
		t.Errorf("the storage got %v", seen)
	}
	r.Recorder.Expect(t, "GET /v2/a/blobs/"+blob.String())
	storage.Recorder.Expect(t, "GET /signed?sig=1")
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestStorageRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		status, refusals int
		want             int // 0: success
		requests         int // to the registry
	}{
		"expired signature":  {403, 1, 0, 2},
		"expired session":    {400, 1, 0, 2},
		"gone":               {404, 9, 503, 2},
		"refused for good":   {403, 9, 503, 2},
		"behind the end":     {416, 9, 416, 1},
		"storage out of use": {500, 9, 503, 2},
	} {
		t.Run(name, func(t *testing.T) {
			left := c.refusals
			storage := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if left--; left >= 0 {
					w.WriteHeader(c.status)
					return
				}
				_, _ = io.WriteString(w, text)
			}))
			r, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, storage.URL.String()+"/x", http.StatusTemporaryRedirect)
			})
			s, err := client.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob})
			if err == nil {
				_ = s.Body.Close()
			}
			if got := status(err); got != c.want || (err != nil && !errors.Is(err, upstream.ErrStorage)) {
				t.Errorf("got status %d, %v; want %d", got, err, c.want)
			}
			if n := len(r.Recorder.Take()); n != c.requests {
				t.Errorf("%d requests to the registry, want %d", n, c.requests)
			}
		})
	}
}

func TestRedirectsThatAreNotFollowed(t *testing.T) {
	r, c := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) })
	if _, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob}); !errors.Is(err, upstream.ErrCorrupt) {
		t.Errorf("a loop: %v", err)
	}
	if n := len(r.Recorder.Take()); n != 6 {
		t.Errorf("%d requests in a loop, want 6", n)
	}
	_, c = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", "file:///etc/passwd")
		w.WriteHeader(http.StatusFound)
	})
	if _, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob}); !errors.Is(err, upstream.ErrCorrupt) {
		t.Errorf("another scheme: %v", err)
	}

	plain := upstreamtest.NewRegistry(t)
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, plain.URL.String()+"/x", http.StatusFound)
	}))
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	transport := upstream.NewTransport(upstream.TransportOptions{RootCAs: roots})
	t.Cleanup(transport.CloseIdleConnections)
	c = upstreamtest.NewClient(t, upstream.Options{Base: parse(t, server.URL), Transport: transport})
	if _, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob}); !errors.Is(err, upstream.ErrCorrupt) {
		t.Errorf("from TLS to plain HTTP: %v", err)
	}
	plain.Recorder.Expect(t)
}

func TestRangeAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status  int
		header  string
		body    string
		want    string
		size    int64
		ranges  bool
		corrupt bool
	}{
		"as asked":         {206, "bytes 4-9/10", text[4:], text[4:], 10, true, false},
		"size not told":    {206, "bytes 4-9/*", text[4:], text[4:], -1, true, false},
		"ignored":          {200, "", text, text[4:], 10, false, false},
		"from elsewhere":   {206, "bytes 3-9/10", text[3:], "", 0, false, true},
		"length off":       {206, "bytes 4-8/10", text[4:], "", 0, false, true},
		"no content range": {206, "", text[4:], "", 0, false, true},
		"nonsense":         {206, "bytes four-9/10", text[4:], "", 0, false, true},
		"behind the end":   {206, "bytes 4-9/9", text[4:], "", 0, false, true},
		"other unit":       {206, "lines 4-9/10", text[4:], "", 0, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if c.header != "" {
					w.Header().Set("Content-Range", c.header)
				}
				w.Header().Set("Content-Length", fmt.Sprint(len(c.body)))
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			s, err := client.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob, From: 4})
			if c.corrupt {
				if !errors.Is(err, upstream.ErrCorrupt) || status(err) != 502 {
					t.Errorf("got %v, want ErrCorrupt", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Body.Close()
			got, err := io.ReadAll(s.Body)
			if int64(len(got)) < s.Skip || string(got[s.Skip:]) != c.want || err != nil || s.Size != c.size || s.Ranges != c.ranges {
				t.Errorf("got %q, %v, size %d, ranges %v, skip %d", got, err, s.Size, s.Ranges, s.Skip)
			}
		})
	}
}

func TestBytesAreNotDecoded(t *testing.T) {
	_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("Accept-Encoding: %s", r.Header.Get("Accept-Encoding"))
		}
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, text)
	})
	s, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Body.Close()
	if got, err := io.ReadAll(s.Body); string(got) != text || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestManifestsThatAreNotPublished(t *testing.T) {
	img := upstreamtest.NewImage(t, "x", 10)
	other := oci.Reference{Digest: digest.FromString("other")}
	for name, c := range map[string]struct {
		ref         oci.Reference
		contentType string
		stated      string
		body        []byte
		want        error
	}{
		"good":                 {tag, img.Manifest.MediaType, img.Manifest.Digest.String(), img.Manifest.Raw, nil},
		"good with sha512":     {oci.Reference{Digest: digest.SHA512.FromBytes(img.Manifest.Raw)}, img.Manifest.MediaType, "", img.Manifest.Raw, nil},
		"parameters":           {tag, img.Manifest.MediaType + "; charset=utf-8", "", img.Manifest.Raw, nil},
		"type in the body":     {tag, "text/plain", "", img.Manifest.Raw, nil},
		"stated digest odd":    {tag, img.Manifest.MediaType, "md5:x", img.Manifest.Raw, nil},
		"not what was asked":   {other, img.Manifest.MediaType, "", img.Manifest.Raw, upstream.ErrCorrupt},
		"not what was stated":  {tag, img.Manifest.MediaType, other.String(), img.Manifest.Raw, upstream.ErrCorrupt},
		"a login page":         {tag, "text/html", "", []byte("<html>"), upstream.ErrCorrupt},
		"a page of any digest": {tag, "text/html", digest.FromString("<html>").String(), []byte("<html>"), nil},
		"an error with 200":    {tag, "application/json", "", []byte(`{"errors":[]}`), upstream.ErrCorrupt},
		"too large":            {tag, img.Manifest.MediaType, "", make([]byte, oci.MaxPulledBytes+1), oci.ErrSizeInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			_, client := serve(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				if c.stated != "" {
					w.Header().Set("Docker-Content-Digest", c.stated)
				}
				_, _ = w.Write(c.body)
			})
			m, err := client.Manifest(t.Context(), upstream.Repo{Name: "a"}, c.ref, nil)
			if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if err != nil && status(err) != http.StatusBadGateway {
				t.Errorf("status %d, want 502", status(err))
			}
			if err == nil && (m.Digest != digest.FromBytes(c.body) || c.contentType != "text/html" && m.MediaType != img.Manifest.MediaType) {
				t.Errorf("got %s %s", m.MediaType, m.Digest)
			}
		})
	}
}

func TestStatManifestWithoutDigest(t *testing.T) {
	img := upstreamtest.NewImage(t, "x", 10)
	var accept []string
	r, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		accept = r.Header.Values("Accept")
		w.Header().Set("Content-Type", img.Manifest.MediaType)
		_, _ = w.Write(img.Manifest.Raw)
	})
	d, err := c.StatManifest(t.Context(), upstream.Repo{Name: "a"}, tag, []string{"x/y;q=0.5", "z/z, */*"})
	if err != nil || d.Digest != img.Manifest.Digest {
		t.Errorf("got %+v, %v", d, err)
	}
	r.Recorder.Expect(t, "HEAD /v2/a/manifests/t", "GET /v2/a/manifests/t")
	if len(accept) != 2 || accept[0] != "x/y;q=0.5" || accept[1] != "z/z, */*" {
		t.Errorf("Accept was sent as %q", accept)
	}
}

func TestRefusals(t *testing.T) {
	const denied = "User: arn:aws:iam::1:user/x is not authorized to perform: ecr:BatchGetImage"
	for name, c := range map[string]struct {
		status        int
		challenge     string
		code, message string
		want          error
		wantStatus    int
		credentials   bool
	}{
		"iam":                {403, "", "DENIED", denied, oci.ErrDenied, 403, false},
		"expired token":      {403, "", "DENIED", "Your Authorization Token has expired. Reauthenticate", upstream.ErrCredentials, 503, true},
		"not authorised":     {401, `Basic realm="x"`, "UNAUTHORIZED", "", oci.ErrDenied, 403, false},
		"insufficient scope": {401, `Bearer realm="x",error="insufficient_scope"`, "UNAUTHORIZED", "", oci.ErrDenied, 403, false},
		"throttled":          {429, "", "TOOMANYREQUESTS", "Rate exceeded", oci.ErrTooManyRequests, 429, false},
		"unknown":            {404, "", "MANIFEST_UNKNOWN", "Requested image not found", oci.ErrManifestUnknown, 404, false},
		"failing":            {502, "", "", "", oci.ErrUnavailable, 502, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := upstreamtest.Serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.challenge != "" {
					w.Header().Set("WWW-Authenticate", c.challenge)
				}
				if c.code == "" {
					w.WriteHeader(c.status)
					return
				}
				wire(w, c.status, c.code, c.message)
			}))
			client := upstreamtest.NewClient(t, upstream.Options{
				Base: r.URL, Quirks: upstream.Quirks{CredentialTexts: []string{"authorization token has expired"}},
			})
			_, err := client.Manifest(t.Context(), upstream.Repo{Name: "a"}, tag, nil)
			if !errors.Is(err, c.want) || status(err) != c.wantStatus || errors.Is(err, upstream.ErrCredentials) != c.credentials {
				t.Errorf("got %v (%d), want %v (%d)", err, status(err), c.want, c.wantStatus)
			}
			if name == "iam" && !strings.Contains(err.Error(), denied) {
				t.Errorf("the text is lost: %v", err)
			}
			if c.credentials && errors.Is(err, oci.ErrDenied) {
				t.Error("a refused credential looks like a refused request")
			}
			if e, _ := errors.AsType[*oci.Error](err); len(e.Challenge) != 0 {
				t.Errorf("the upstream's challenge would reach the client: %q", e.Challenge)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := "http://" + l.Addr().String()
	_ = l.Close()
	silent := upstreamtest.Serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	slam := upstreamtest.Serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	tls := httptest.NewUnstartedServer(http.NotFoundHandler())
	tls.Config.ErrorLog = log.New(io.Discard, "", 0)
	tls.StartTLS()
	t.Cleanup(tls.Close)
	for name, base := range map[string]string{
		"refused": closed, "silent": silent.URL.String(), "closed without an answer": slam.URL.String(),
		"unknown authority": tls.URL, "no such port": "http://127.0.0.1:1",
	} {
		t.Run(name, func(t *testing.T) {
			transport := upstream.NewTransport(upstream.TransportOptions{Timeout: 100 * time.Millisecond})
			t.Cleanup(transport.CloseIdleConnections)
			c := upstreamtest.NewClient(t, upstream.Options{Name: "up", Base: parse(t, base), Transport: transport})
			_, err := c.StatManifest(t.Context(), upstream.Repo{Name: "a"}, tag, nil)
			if !errors.Is(err, upstream.ErrUnreachable) || !upstream.Transient(err) || status(err) != 503 {
				t.Errorf("got %v (%d), want ErrUnreachable with 503", err, status(err))
			}
			if e, _ := errors.AsType[*oci.Error](err); strings.Contains(e.Message, "127.0.0.1") {
				t.Errorf("the client would see an address: %s", e.Message)
			}
		})
	}
}

func TestDeadlineIsUnreachable(t *testing.T) {
	_, c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.StatManifest(ctx, upstream.Repo{Name: "a"}, tag, nil); !errors.Is(err, upstream.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrUnreachable", err)
	}
}

// stuck is a body that does not come until its request is given up.
type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) { <-s.ctx.Done(); return 0, s.ctx.Err() }
func (s stuck) Close() error             { return nil }

// TestSilentAnswers has answers whose headers come and whose bodies do not.
func TestSilentAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		call   func(context.Context, *upstream.Client) error
		want   error
	}{
		"manifest": {200, func(ctx context.Context, c *upstream.Client) error {
			_, err := c.Manifest(ctx, upstream.Repo{Name: "a"}, tag, nil)
			return err
		}, upstream.ErrUnreachable},
		"tags": {200, func(ctx context.Context, c *upstream.Client) error {
			_, err := c.Tags(ctx, upstream.Repo{Name: "a"}, nil)
			return err
		}, upstream.ErrUnreachable},
		"error text": {404, func(ctx context.Context, c *upstream.Client) error {
			_, err := c.Blob(ctx, upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob})
			return err
		}, oci.ErrBlobUnknown},
		"mounted": {201, func(ctx context.Context, c *upstream.Client) error {
			_, err := c.Mount(ctx, upstream.Repo{Name: "a"}, "b", blob)
			return err
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := upstreamtest.NewClient(t, upstream.Options{
					Base: parse(t, "http://x"),
					Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
						return &http.Response{StatusCode: c.status, Header: http.Header{}, ContentLength: 99, Request: r, Body: stuck{r.Context()}}, nil
					}),
				})
				began := time.Now()
				err := c.call(t.Context(), client)
				if d := time.Since(began); d > 20*time.Second {
					t.Errorf("waited %v", d)
				}
				if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
					t.Errorf("got %v, want %v", err, c.want)
				}
			})
		})
	}
}

// TestBlobPart asks for a part, of a registry that has ranges and of one that has not.
func TestBlobPart(t *testing.T) {
	for _, ranges := range []bool{true, false} {
		_, c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if !ranges {
				r.Header.Del("Range")
			}
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(text))
		})
		for _, part := range [][2]int64{{0, 3}, {4, 7}, {9, 10}} {
			from, to := part[0], part[1]
			s, err := c.Blob(t.Context(), upstream.BlobRequest{Repo: upstream.Repo{Name: "a"}, Digest: blob, From: from, To: to})
			if err != nil {
				t.Fatal(err)
			}
			want, skip := text[from:to], int64(0)
			if !ranges {
				want, skip = text, from
			}
			if got, err := io.ReadAll(s.Body); string(got) != want || err != nil || s.Size != 10 || s.Ranges != ranges || s.Skip != skip {
				t.Errorf("%d to %d: got %q, %v, size %d, ranges %v, skip %d", from, to, got, err, s.Size, s.Ranges, s.Skip)
			}
			s.Body.Close()
		}
	}
}
