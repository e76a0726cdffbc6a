package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// A Client is a Source. Retry repeats its reads, and Breaker refuses them while the registry is
// down; both are Sources again, so that callers see no difference.
func ExampleSource() {
	layer := []byte("hello")
	d := digest.FromBytes(layer)
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q, err := oci.Parse(r); err != nil || q.Kind != oci.KindBlob || q.Ref.Digest != d {
			oci.WriteError(w, oci.ErrBlobUnknown)
			return
		}
		w.Write(layer)
	}))
	defer registry.Close()
	base, err := url.Parse(registry.URL)
	if err != nil {
		fmt.Println(err)
		return
	}
	transport := upstream.NewTransport(upstream.TransportOptions{})
	defer transport.CloseIdleConnections()

	client, err := upstream.New(upstream.Options{
		Name: "example", Base: base, Transport: transport,
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	breaker := upstream.NewBreaker(upstream.BreakerOptions{Name: "example"})
	var source upstream.Source = upstream.NewRetry(
		breaker.Source(client), upstream.RetryOptions{Name: "example"})

	ctx, repo := context.Background(), upstream.Repo{Name: "team/app"}
	stream, err := source.Blob(ctx, upstream.BlobRequest{Repo: repo, Digest: d})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stream.Body.Close()
	got, err := io.ReadAll(stream.Body) // not verified: that is the caller's part
	fmt.Printf("%s, %d bytes, %v\n", got, stream.Size, err)

	_, err = source.StatBlob(ctx, repo, digest.FromString("something else"))
	fmt.Println(errors.Is(err, oci.ErrBlobUnknown), oci.NotFound(err))
	// Output:
	// hello, 5 bytes, <nil>
	// true true
}
