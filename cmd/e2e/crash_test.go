package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"dray/upstream/ecrtest"
)

const layerSize = 24 << 20

// TestKilledWhileFilling ends dray, as a power cut would, while it fetches a layer; at several
// points, on one cache.
func TestKilledWhileFilling(t *testing.T) {
	s := newStack(t, stackOptions{})
	for i, after := range []int64{0, 64 << 10, layerSize / 2, layerSize * 9 / 10} {
		row(t, "dray", "", fmt.Sprintf("killed after %d bytes of a layer, it serves the right ones when it is back", after), func(t *testing.T) {
			ref := fmt.Sprintf("library/big:%d", i)
			img := randomImage(t, types.OCIManifestSchema1, 1, layerSize)
			s.hub.push(t, ref, img)
			layer := layerOf(t, img)

			s.hub.SetBandwidth(ecrtest.Bandwidth{Total: layerSize / 2}) // two seconds for the layer
			body := s.getBlob(t, "library/big", ref, layer)
			if _, err := io.CopyN(io.Discard, body, after); err != nil {
				t.Fatalf("the first %d bytes: %v", after, err)
			}
			s.dray.kill()
			n, err := io.Copy(io.Discard, body)
			_ = body.Close()
			if err == nil && after+n >= layerSize {
				t.Error("the answer was complete before dray was killed; this test shows nothing")
			}
			s.hub.SetBandwidth(ecrtest.Bandwidth{})
			s.start()

			body = s.getBlob(t, "library/big", ref, layer)
			hash := sha256.New()
			if _, err := io.Copy(hash, body); err != nil {
				t.Errorf("read the layer after the restart: %v", err)
			}
			_ = body.Close()
			if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); got != layer.String() {
				t.Errorf("after the restart the layer is %s, want %s", got, layer)
			}
			asked := s.hub.asked()
			there, options := s.mirror(t, ref)
			blobs(t, there, options)
			asked.none(t, ecrtest.KindManifestGet, ecrtest.KindManifestHead)
			if n := asked.bytesSince(); n >= layerSize {
				t.Errorf("Docker Hub sent %d bytes for a layer that dray holds", n)
			}
		})
	}
	row(t, "dray", "", "killed while idle, it keeps its cache", func(t *testing.T) {
		s.dray.kill()
		s.start()
		asked := s.hub.asked()
		for i := range 4 {
			there, options := s.mirror(t, fmt.Sprintf("library/big:%d", i))
			blobs(t, there, options)
		}
		asked.none(t, ecrtest.KindBlobGet, ecrtest.KindBlobHead, ecrtest.KindObjectGet)
	})
}

// getBlob asks the mirror for a layer, after the manifest that names it, as a client does.
func (s *stack) getBlob(t *testing.T, repo, ref string, layer v1.Hash) io.ReadCloser {
	t.Helper()
	there, options := s.mirror(t, ref)
	if _, err := remote.Get(there, options...); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: s.transport(t)}
	resp, err := client.Get("https://" + drayName + "/v2/" + repo + "/blobs/" + layer.String())
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		t.Fatalf("get %s: %s", layer, resp.Status)
	}
	return resp.Body
}

func layerOf(t *testing.T, img v1.Image) v1.Hash {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	digest, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// TestKilledWhilePushing ends dray, as a power cut would, in the middle of a push.
func TestKilledWhilePushing(t *testing.T) {
	s := newStack(t, stackOptions{})
	steps := []struct {
		name  string
		kinds []ecrtest.Kind
	}{
		{"begins to take a layer", []ecrtest.Kind{ecrtest.KindUploadStart, "InitiateLayerUpload"}},
		{"takes a layer", []ecrtest.Kind{ecrtest.KindUploadPatch, ecrtest.KindUploadPut, "UploadLayerPart"}},
		{"takes the manifest", []ecrtest.Kind{ecrtest.KindManifestPut, "PutImage"}},
	}
	for i, step := range steps {
		row(t, "dray", "", "killed while ECR "+step.name+", the same push succeeds when it is back", func(t *testing.T) {
			name := fmt.Sprintf("crash/app%d", i)
			s.ecr.CreateRepository(name)
			img := randomImage(t, types.DockerManifestSchema2, 3, 4<<20)
			reached := s.ecr.holds(t, step.kinds...)

			pushed := make(chan error, 1)
			ref, options := s.registry(t, name+":1")
			go func() {
				pushed <- remote.Write(ref, img, append(options, remote.WithRetryBackoff(remote.Backoff{Steps: 1}))...)
			}()
			select {
			case <-reached:
			case err := <-pushed:
				t.Fatalf("the push ended before ECR was asked: %v", err)
			}
			s.dray.kill()
			if err := <-pushed; err == nil {
				t.Error("a push has succeeded without dray")
			}
			s.ecr.ClearFaults()
			s.ecr.quiet(t)
			if got, ok := s.ecr.Image(name, "1"); ok && got.Digest.String() != digestOf(t, img) {
				t.Errorf("ECR has %s under the tag, want nothing or %s", got.Digest, digestOf(t, img))
			}
			s.start()
			if err := remote.Write(ref, img, options...); err != nil {
				t.Fatalf("push after the restart: %v", err)
			}
			if got := s.ecr.digest(t, name+":1"); got != digestOf(t, img) {
				t.Errorf("ECR has %s, want %s", got, digestOf(t, img))
			}
			s.sameBytes(t, name+":1")
		})
	}
	row(t, "dray", "", "stopped in the middle of a pull, it ends it first", func(t *testing.T) {
		img := randomImage(t, types.OCIManifestSchema1, 1, layerSize)
		s.hub.push(t, "library/last:1", img)
		s.hub.SetBandwidth(ecrtest.Bandwidth{Total: layerSize / 2})
		body := s.getBlob(t, "library/last", "library/last:1", layerOf(t, img))
		defer body.Close()
		read := make(chan error, 1)
		go func() {
			hash := sha256.New()
			_, err := io.Copy(hash, body)
			if got := "sha256:" + hex.EncodeToString(hash.Sum(nil)); err == nil && got != layerOf(t, img).String() {
				err = errors.New("the layer is " + got)
			}
			read <- err
		}()
		s.dray.stop()
		if err := <-read; err != nil {
			t.Errorf("read the layer while dray stopped: %v", err)
		}
	})
}

// holds makes the registry keep the next request of the kinds waiting, and says when it came.
func (d *double) holds(t *testing.T, kinds ...ecrtest.Kind) <-chan struct{} {
	t.Helper()
	asked := d.asked()
	d.AddFault(ecrtest.Fault{Kinds: kinds, Latency: 3 * time.Second}) // longer than it takes to be killed
	reached := make(chan struct{})
	go func() { // ends with the test
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for asked.since(kinds...) == 0 {
			select {
			case <-tick.C:
			case <-t.Context().Done():
				return
			}
		}
		close(reached)
	}()
	return reached
}
