package pull_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/opencontainers/go-digest"

	"dray/mirror/mirrortest"
	"dray/upstream"
	"dray/upstream/oci"
)

// endless is a source whose blobs do not end, although they begin as they should.
type endless struct {
	upstream.Source
	announced int64
	read      *int64
}

func (e endless) Blob(ctx context.Context, r upstream.BlobRequest) (upstream.BlobStream, error) {
	s, err := e.Source.Blob(ctx, r)
	if err == nil {
		s.Size, s.Body = e.announced, &endlessBody{s.Body, e.read}
	}
	return s, err
}

type endlessBody struct {
	io.ReadCloser
	read *int64
}

func (b *endlessBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF && n == 0 {
		n, err = len(p), nil
	}
	*b.read += int64(n)
	if *b.read > 100<<20 {
		return 0, errors.New("it would never end")
	}
	return n, err
}

// A client that has the manifest gets no more of a blob than the manifest states, whatever the
// registry sends and announces.
func TestEndlessBlobs(t *testing.T) {
	for name, announced := range map[string]int64{"no size is announced": -1, "a large size is announced": math.MaxInt64 / 2} {
		t.Run(name, func(t *testing.T) {
			h, read := &fixture{Fixture: mirrortest.New(t, mirrortest.Options{})}, int64(0)
			h.layered("team/app", "v1", []string{"a layer", "another one"})
			h.Upstream.Source = endless{h.Registry, announced, &read}
			h.Want(http.StatusOK, "GET", "/v2/team/app/manifests/v1", nil)
			var got *httptest.ResponseRecorder
			cut := func() (cut bool) {
				defer func() { cut = recover() == http.ErrAbortHandler }()
				got = h.Do("GET", "/v2/team/app/blobs/"+digest.FromString("a layer").String(), nil)
				return false
			}()
			if !cut && got.Code != http.StatusBadGateway {
				t.Errorf("%d with %d bytes", got.Code, got.Body.Len())
			}
			if read > 1<<20 {
				t.Errorf("%d bytes were read from the upstream", read)
			}
		})
	}
}

// A manifest that states too few bytes of a layer that dray has once verified does not keep it from
// others.
func TestUnderstatedSizes(t *testing.T) {
	h := newFixture(t)
	layer := []byte("a layer of some image")
	h.Pull("team/app", "v1", h.Hold("team/app", "v1", layer), layer)
	less, err := oci.ParseManifest(oci.MediaTypeOCIManifest, fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":1}]}`, digest.FromBytes(layer)))
	if err != nil {
		t.Fatal(err)
	}
	h.Registry.HoldManifest("team/app", "less", less)
	h.Want(http.StatusOK, "GET", "/v2/team/app/manifests/less", nil)
	if err := h.Cache.Delete(t.Context(), digest.FromBytes(layer)); err != nil {
		t.Fatal(err)
	}
	if got := h.Want(http.StatusOK, "GET", "/v2/team/app/blobs/"+digest.FromBytes(layer).String(), nil).Body.String(); got != string(layer) {
		t.Errorf("got %q", got)
	}
}
