package ecrtest

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// SeedImage describes an image to create. Each of its layers has one file of random bytes.
type SeedImage struct {
	Repository, Tag string
	Layers          int   // 0 means 1
	LayerBytes      int64 // size of each layer's file; 0 means 1 KiB
	Docker          bool  // Docker schema 2 instead of OCI
	Seed            uint64
}

// Seed makes an image in the default registry without a request. Equal arguments give equal
// digests.
func (s *Server) Seed(img SeedImage) (digest.Digest, error) {
	if !anchoredName.MatchString(img.Repository) || !anchoredTag.MatchString(img.Tag) {
		return "", fmt.Errorf("seed %s:%s: not a name and tag", img.Repository, img.Tag)
	}
	g := s.defaultRegistry()
	repo := s.createRepository(g, newRepository(img.Repository, newUUID(), s.now()))
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest}
	m.SchemaVersion = 2
	config := v1.Image{Platform: v1.Platform{Architecture: "amd64", OS: "linux"}}
	config.RootFS.Type = "layers"
	for i := range orDefault(img.Layers, 1) {
		l, diff, err := s.seedLayer(repo, img, i)
		if err != nil {
			return "", fmt.Errorf("seed %s:%s: %w", img.Repository, img.Tag, err)
		}
		m.Layers = append(m.Layers, l)
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, diff)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		return "", err
	}
	b, err := s.ingest(repo, "", func(w io.Writer) error { _, err := w.Write(raw); return err })
	if err != nil {
		return "", fmt.Errorf("seed %s:%s: %w", img.Repository, img.Tag, err)
	}
	m.Config = v1.Descriptor{MediaType: v1.MediaTypeImageConfig, Digest: b.Digest, Size: b.Size}
	return s.seedManifest(repo, img, m)
}

func (s *Server) seedManifest(repo *repository, img SeedImage, m v1.Manifest) (digest.Digest, error) {
	raw, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	doc, err := parseDocument("", raw, strictness{})
	if err != nil {
		return "", err
	}
	if img.Docker {
		converted, ok := transcribe(doc, mediaDockerManifest, false)
		if !ok {
			return "", fmt.Errorf("seed %s:%s: no Docker form", img.Repository, img.Tag)
		}
		if doc, err = parseDocument("", converted.raw, strictness{}); err != nil {
			return "", err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	repo.put(doc, img.Tag, s.nowLocked())
	return doc.digest, nil
}

// SeedManifest puts any bytes under a tag of a repository of the default registry, without a
// request. The server serves the bytes with the given media type and digest, even if these are
// wrong.
func (s *Server) SeedManifest(repository, tag, mediaType string, d digest.Digest, raw []byte) {
	repo := s.createRepository(s.defaultRegistry(), newRepository(repository, newUUID(), s.now()))
	s.mu.Lock()
	defer s.mu.Unlock()
	repo.put(&document{raw: raw, media: mediaType, digest: d}, tag, s.nowLocked())
}

// ingest calls writeTo, and stores the written bytes as a blob of the repository. If expected is
// not empty, ingest refuses bytes that have another digest.
func (s *Server) ingest(repo *repository, expected digest.Digest, writeTo func(io.Writer) error) (v1.Descriptor, error) {
	u, err := s.newUpload(repo)
	if err != nil {
		return v1.Descriptor{}, err
	}
	defer s.forget(u)
	counter := &countingWriter{w: io.MultiWriter(u.file, u.hash)}
	if err := writeTo(counter); err != nil {
		return v1.Descriptor{}, err
	}
	d := u.digest()
	if expected != "" && d != expected {
		return v1.Descriptor{}, fmt.Errorf("ingest %s: bytes have digest %s", expected, d)
	}
	if err := s.publish(u, d, counter.n); err != nil {
		return v1.Descriptor{}, err
	}
	return v1.Descriptor{Digest: d, Size: counter.n}, nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// seedLayer makes a gzipped tar with one file of incompressible bytes.
func (s *Server) seedLayer(repo *repository, img SeedImage, i int) (v1.Descriptor, digest.Digest, error) {
	key := sha256.Sum256(fmt.Appendf(nil, "%s:%s %d %d", img.Repository, img.Tag, img.Seed, i))
	plain := sha256.New()
	b, err := s.ingest(repo, "", func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.NoCompression)
		if err != nil {
			return err
		}
		n := orDefault(img.LayerBytes, 1024)
		t := tar.NewWriter(io.MultiWriter(z, plain))
		h := &tar.Header{Name: fmt.Sprintf("layer-%d-%s", i, hex.EncodeToString(key[:4])), Mode: 0o644, Size: n, ModTime: time.Unix(0, 0)}
		if err := t.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.CopyN(t, rand.NewChaCha8(key), n); err != nil {
			return err
		}
		if err := t.Close(); err != nil {
			return err
		}
		return z.Close()
	})
	b.MediaType = v1.MediaTypeImageLayerGzip
	return b, digest.NewDigest(digest.SHA256, plain), err
}
