package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sync/errgroup"
)

// makeImage makes an image with one layer for each of the binaries. The image runs the first
// binary. The label is also in each layer, so that images with different labels share no layer.
func makeImage(label string, binaries ...string) (v1.Image, error) {
	img := empty.Image
	for i, path := range binaries {
		target := "dray"
		if i > 0 {
			target = fmt.Sprintf("payload/%d", i)
		}
		layer, err := makeLayer(path, target, label)
		if err != nil {
			return nil, fmt.Errorf("layer of %s: %w", path, err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config.Entrypoint, file.Config.Cmd = []string{"/dray"}, []string{"version"}
	file.Config.Labels = map[string]string{"playtest": label}
	return mutate.ConfigFile(img, file)
}

func makeLayer(path, target, label string) (v1.Layer, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name string
		mode int64
		body []byte
	}{{"etc/playtest", 0o644, []byte(label + "\n")}, {target, 0o755, content}} {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.body)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.body); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressionLevel(gzip.BestSpeed), tarball.WithCompressedCaching)
}

// client pushes and pulls, with connections of its own.
type client struct {
	transport *countingTransport
	auth      authn.Authenticator
	registry  string
}

// countingTransport counts the bytes of bodies in both directions.
type countingTransport struct {
	base           *http.Transport
	sent, received atomic.Int64
}

// RoundTrip sends the request.
func (t *countingTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context())
		r.Body = &countingBody{r.Body, &t.sent}
	}
	resp, err := t.base.RoundTrip(r)
	if err == nil {
		resp.Body = &countingBody{resp.Body, &t.received}
	}
	return resp, err
}

type countingBody struct {
	io.ReadCloser
	n *atomic.Int64
}

// Read reads and counts.
func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

func (c *client) reference(image string) (name.Reference, error) {
	return name.ParseReference(c.registry+"/"+image, name.StrictValidation)
}

func (c *client) remote(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.transport), remote.WithAuth(c.auth), remote.WithUserAgent("dray-playtest")}
}

func (c *client) push(ctx context.Context, image string, img v1.Image) error {
	ref, err := c.reference(image)
	if err != nil {
		return err
	}
	return remote.Write(ref, img, c.remote(ctx)...)
}

// pull reads the whole image, with all layers at the same time, and verifies every digest.
// wantDigest is the expected digest of the manifest.
func (c *client) pull(ctx context.Context, image string, wantDigest v1.Hash) error {
	ref, err := c.reference(image)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	img, err := remote.Image(ref, c.remote(ctx)...)
	if err != nil {
		return err
	}
	got, err := img.Digest()
	if err != nil {
		return err
	}
	if got != wantDigest {
		return fmt.Errorf("%s is %s, want %s", image, got, wantDigest)
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		g.Go(func() error {
			body, err := l.Compressed() // verifies size and digest at the end
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(io.Discard, body)
			return err
		})
	}
	g.Go(func() error { _, err := img.RawConfigFile(); return err })
	return g.Wait()
}

// close ends the connections.
func (c *client) close() { c.transport.base.CloseIdleConnections() }
