package upstream_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsecr "github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"

	"dray/upstream"
	"dray/upstream/auth"
	"dray/upstream/ecr"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
	"dray/upstream/upstreamtest"
)

// offline is a fake ECR in the same process, without a network, so that its clock can be a test's.
type offline struct {
	*ecrtest.Server
	calls int
	down  error
}

func (o *offline) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	o.Registry().ServeHTTP(w, r)
	_ = r.Body.Close()
	resp := w.Result()
	resp.Request = r
	return resp, nil
}

func (o *offline) GetAuthorizationToken(context.Context, *awsecr.GetAuthorizationTokenInput, ...func(*awsecr.Options)) (*awsecr.GetAuthorizationTokenOutput, error) {
	o.calls++
	if o.down != nil {
		return nil, o.down
	}
	return &awsecr.GetAuthorizationTokenOutput{AuthorizationData: []types.AuthorizationData{{
		AuthorizationToken: aws.String(base64.StdEncoding.EncodeToString([]byte("AWS:" + o.Token("")))), ExpiresAt: aws.Time(time.Now().Add(12 * time.Hour)),
	}}}, nil
}

// TestExpiredToken has the registry's clock and dray's disagree about the life of a token.
func TestExpiredToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, err := ecrtest.New(ecrtest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		server.CreateRepository("aa")
		o := &offline{Server: server}
		base := parse(t, "http://"+server.HostName())
		tokens := ecr.NewTokens(ecr.TokenOptions{API: o, Region: "eu-west-1"})
		rec := &upstreamtest.Recorder{}
		c := upstreamtest.NewClient(t, upstream.Options{
			Base: base, Quirks: ecr.Private(),
			Transport: auth.New(auth.Options{Base: rec.Transport(o), Origin: base, Credentials: tokens.Credential, Expired: ecr.Expired}),
		})
		get := func() error {
			_, err := c.Manifest(t.Context(), upstream.Repo{Name: "aa"}, oci.Reference{Tag: "absent"}, nil)
			return err
		}
		expect := func(calls int, want ...string) {
			t.Helper()
			rec.Expect(t, want...)
			if o.calls != calls {
				t.Errorf("%d calls of GetAuthorizationToken, want %d", o.calls, calls)
			}
		}
		if err := get(); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Fatal(err)
		}
		expect(1, "GET /v2/aa/manifests/absent")

		time.Sleep(time.Hour)
		server.ExpireTokens()
		if err := get(); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Errorf("after the token expired: %v", err)
		}
		expect(2, "GET /v2/aa/manifests/absent", "GET /v2/aa/manifests/absent")

		time.Sleep(time.Hour)
		server.ExpireTokens()
		if _, err := c.StatManifest(t.Context(), upstream.Repo{Name: "aa"}, oci.Reference{Tag: "absent"}, nil); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Errorf("HEAD after the token expired: %v", err)
		}
		expect(3, "HEAD /v2/aa/manifests/absent", "HEAD /v2/aa/manifests/absent", "GET /v2/aa/manifests/absent")

		// A token that ECR does not know is renewed like an expired one, also by HEAD, which has no text.
		for i, status := range []int{http.StatusBadRequest, http.StatusForbidden} {
			sw := server.Switches()
			sw.InvalidTokenStatus = status
			server.SetSwitches(sw)
			time.Sleep(time.Hour)
			server.ForgetTokens()
			if _, err := c.StatManifest(t.Context(), upstream.Repo{Name: "aa"}, oci.Reference{Tag: "absent"}, nil); !errors.Is(err, oci.ErrManifestUnknown) {
				t.Errorf("HEAD with a token that is refused with %d: %v", status, err)
			}
			expect(4+i, "HEAD /v2/aa/manifests/absent", "HEAD /v2/aa/manifests/absent", "GET /v2/aa/manifests/absent")
		}

		server.SetDenials(ecrtest.Denial{Action: "ecr:BatchGetImage"})
		for range 5 { // a refusal by policy says nothing about the token
			if err := get(); !errors.Is(err, oci.ErrDenied) || errors.Is(err, upstream.ErrCredentials) {
				t.Errorf("denied by IAM: %v", err)
			}
		}
		rec.Take()
		expect(5)
		server.SetDenials()

		time.Sleep(time.Hour)
		server.ExpireTokens()
		o.down = errors.New("sts is down")
		for range 10 {
			if err := get(); !errors.Is(err, upstream.ErrCredentials) || !upstream.Transient(err) || status(err) != http.StatusServiceUnavailable {
				t.Errorf("without any token: %v", err)
			}
		}
		if o.calls != 6 {
			t.Errorf("%d calls while they fail, want 6", o.calls)
		}

		// A stream cannot be sent again, so its refusal ends the attempt; the next one has a token.
		o.down = nil
		time.Sleep(time.Hour)
		if err := get(); !errors.Is(err, oci.ErrManifestUnknown) {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		rec.Take()
		img := upstreamtest.NewImage(t, "x", 100)
		u := upstreamtest.Stream(img.Layer)
		once := false
		u.Accepted = func() {
			if !once {
				once = true
				server.ExpireTokens()
			}
		}
		if err := c.PutBlob(t.Context(), upstream.Repo{Name: "aa"}, u); err != nil {
			t.Error(err)
		}
		if lines := rec.Take(); len(lines) != 5 || lines[1] != patch || lines[2] != start {
			t.Errorf("requests %q, want the start and the bytes twice", lines)
		}
	})
}

// TestEndedToken has a registry end its tokens before their time, and say so by a status without a
// challenge. Every call gets a new token.
func TestEndedToken(t *testing.T) {
	for _, status := range []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden} {
		synctest.Test(t, func(t *testing.T) {
			server, err := ecrtest.New(ecrtest.Options{Quirks: ecrtest.Other(), Dialect: ecrtest.Dialect{Tokens: ecrtest.Tokens{EndedToken: status}}})
			if err != nil {
				t.Fatal(err)
			}
			defer server.Close()
			d, err := server.Seed(ecrtest.SeedImage{Repository: "aa", Tag: "v1"})
			if err != nil {
				t.Fatal(err)
			}
			base, repo := parse(t, "http://registry.example"), upstream.Repo{Name: "aa"}
			c := upstreamtest.NewClient(t, upstream.Options{Base: base, Transport: auth.New(auth.Options{Base: &offline{Server: server}, Origin: base})})
			m, err := c.Manifest(t.Context(), repo, oci.Reference{Digest: d}, nil)
			if err != nil {
				t.Fatal(err)
			}
			img := upstreamtest.NewImage(t, "x", 100)
			stream := upstreamtest.Stream(img.Layer)
			end := func() {
				time.Sleep(20 * time.Second)
				server.ExpireTokens()
			}
			once := false
			stream.Accepted = func() { // within the upload, too
				if !once {
					once = true
					end()
				}
			}
			for what, call := range map[string]func() error{
				"manifest": func() error { _, err := c.Manifest(t.Context(), repo, oci.Reference{Tag: "v1"}, nil); return err },
				"stat":     func() error { _, err := c.StatManifest(t.Context(), repo, oci.Reference{Tag: "v1"}, nil); return err },
				"size":     func() error { _, err := c.StatBlob(t.Context(), repo, m.Config.Digest); return err },
				"tags":     func() error { _, err := c.Tags(t.Context(), repo, nil); return err },
				"referrers": func() error {
					_, err := c.Referrers(t.Context(), repo, d, nil)
					return err
				},
				"blob":   func() error { return c.PutBlob(t.Context(), repo, upstreamtest.Upload(img.Config)) },
				"stream": func() error { return c.PutBlob(t.Context(), repo, stream) },
				"push": func() error {
					_, err := c.PutManifest(t.Context(), repo, oci.Reference{Tag: "v2"}, m)
					return err
				},
			} {
				end()
				if err := call(); err != nil {
					t.Errorf("%d: %s: %v", status, what, err)
				}
			}
		})
	}
}
