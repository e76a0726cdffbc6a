package mirrortest

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"sync"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// Registry is an upstream in memory.
type Registry struct {
	mu        sync.Mutex
	manifests map[string]*oci.Manifest // by "repo:tag" and "repo@digest"
	blobs     map[string][]byte        // by "repo@digest"
	calls     map[string]int
	half      chan struct{}
}

var (
	_ upstream.Source = (*Registry)(nil)
	_ upstream.Sink   = (*Registry)(nil)
	_ upstream.Lister = (*Registry)(nil)
)

// NewRegistry returns a registry without content.
func NewRegistry() *Registry {
	return &Registry{manifests: map[string]*oci.Manifest{}, blobs: map[string][]byte{}, calls: map[string]int{}}
}

func at(repo string, ref oci.Reference) string {
	if ref.ByDigest() {
		return repo + "@" + ref.String()
	}
	return repo + ":" + ref.Tag
}

// Count returns how many times Manifest or StatManifest was called, if what is "manifest". If what
// is "blob", it returns how many times Blob was called for a blob that the registry has.
func (r *Registry) Count(what string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls[what]
}

// HoldManifest adds a manifest to a repository. If tag is not empty, it also points this tag to m.
func (r *Registry) HoldManifest(repo, tag string, m *oci.Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.manifests[repo+"@"+m.Digest.String()] = m
	if tag != "" {
		r.manifests[repo+":"+tag] = m
	}
}

// Held returns the manifest under a reference, or nil.
func (r *Registry) Held(repo string, ref oci.Reference) *oci.Manifest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.manifests[at(repo, ref)]
}

// DropManifest removes a reference to a manifest. Other references to the manifest stay.
func (r *Registry) DropManifest(repo string, ref oci.Reference) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.manifests, at(repo, ref))
}

// DropManifests removes all manifests.
func (r *Registry) DropManifests() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.manifests)
}

// HoldBlob adds a blob to a repository.
func (r *Registry) HoldBlob(repo string, p []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[repo+"@"+digest.FromBytes(p).String()] = p
}

// HeldBlob returns a blob of a repository.
func (r *Registry) HeldBlob(repo string, d digest.Digest) ([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.blobs[repo+"@"+d.String()]; ok {
		return p, nil
	}
	return nil, oci.ErrBlobUnknown
}

// DropBlob removes a blob from a repository.
func (r *Registry) DropBlob(repo string, d digest.Digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.blobs, repo+"@"+d.String())
}

// Halve delays the second half of each blob until the given channel is closed.
func (r *Registry) Halve(half chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.half = half
}

// Manifest implements [upstream.Source].
func (r *Registry) Manifest(_ context.Context, repo upstream.Repo, ref oci.Reference, _ []string) (*oci.Manifest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls["manifest"]++
	if m := r.manifests[at(repo.Name, ref)]; m != nil {
		c := *m
		return &c, nil
	}
	return nil, oci.ErrManifestUnknown
}

// StatManifest implements [upstream.Source].
func (r *Registry) StatManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference, accept []string) (oci.Descriptor, error) {
	m, err := r.Manifest(ctx, repo, ref, accept)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return m.Descriptor(), nil
}

// Blob implements [upstream.Source].
func (r *Registry) Blob(_ context.Context, q upstream.BlobRequest) (upstream.BlobStream, error) {
	p, err := r.HeldBlob(q.Repo.Name, q.Digest)
	if err != nil {
		return upstream.BlobStream{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls["blob"]++
	body := io.Reader(bytes.NewReader(p[q.From:]))
	if r.half != nil {
		body = io.MultiReader(bytes.NewReader(p[q.From:len(p)/2]), lateEnd(r.half), bytes.NewReader(p[len(p)/2:]))
	}
	return upstream.BlobStream{Body: io.NopCloser(body), Size: int64(len(p)), Ranges: true}, nil
}

// lateEnd is an empty reader that waits before it returns io.EOF.
type lateEnd chan struct{}

func (w lateEnd) Read([]byte) (int, error) {
	<-w
	return 0, io.EOF
}

// StatBlob implements [upstream.Source].
func (r *Registry) StatBlob(_ context.Context, repo upstream.Repo, d digest.Digest) (int64, error) {
	p, err := r.HeldBlob(repo.Name, d)
	return int64(len(p)), err
}

// PutBlob implements [upstream.Sink].
func (r *Registry) PutBlob(_ context.Context, repo upstream.Repo, u upstream.Upload) error {
	rc, err := u.Open()
	if err != nil {
		return err
	}
	defer rc.Close()
	p, err := io.ReadAll(rc)
	if err != nil {
		return err
	}
	d, err := u.Digest()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[repo.Name+"@"+d.String()] = p
	return nil
}

// PutManifest implements [upstream.Sink].
func (r *Registry) PutManifest(_ context.Context, repo upstream.Repo, ref oci.Reference, m *oci.Manifest) (upstream.Pushed, error) {
	r.HoldManifest(repo.Name, ref.Tag, m)
	return upstream.Pushed{Digest: m.Digest}, nil
}

// Mount implements [upstream.Sink]. It mounts nothing.
func (r *Registry) Mount(context.Context, upstream.Repo, string, digest.Digest) (bool, error) {
	return false, nil
}

// Tags implements [upstream.Lister].
func (r *Registry) Tags(context.Context, upstream.Repo, url.Values) (upstream.Page, error) {
	return upstream.Page{Body: []byte(`{"name":"x","tags":["v1"]}`)}, nil
}

// Referrers implements [upstream.Lister]. The registry has no referrers API.
func (r *Registry) Referrers(context.Context, upstream.Repo, digest.Digest, url.Values) (upstream.Page, error) {
	return upstream.Page{}, upstream.ErrReferrersUnsupported
}
