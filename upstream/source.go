package upstream

import (
	"context"
	"io"
	"net/url"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// Source reads one registry. All methods may be called concurrently. The errors are ErrUnreachable,
// ErrCredentials, ErrCorrupt, ErrStorage, ErrBusy, and the registry's own answer as *oci.Error
// (oci.ErrManifestUnknown, oci.ErrBlobUnknown, oci.ErrDenied, oci.ErrTooManyRequests …). If the
// context is cancelled, the error matches context.Canceled.
type Source interface {
	// Manifest gets a manifest with 1 GET. It computes the digest of the bytes, and compares it with
	// the digest in ref and with the digest that the registry states. It sends the client's Accept
	// lines unchanged.
	Manifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (*oci.Manifest, error)
	// StatManifest describes a manifest with 1 HEAD. If the answer does not describe the manifest,
	// StatManifest also sends 1 GET. After a GET, the field Data of the descriptor has the manifest,
	// so that the caller need not get it again. If HEAD fails several times in a row for manifests
	// that GET finds, StatManifest sends only GETs for an hour.
	StatManifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (oci.Descriptor, error)
	// Blob opens a blob with 1 GET, and follows redirects. If ctx ends, reading the body fails.
	Blob(ctx context.Context, r BlobRequest) (BlobStream, error)
	// StatBlob returns the size of a blob in bytes (-1 if unknown), with 1 HEAD, or with a GET of one
	// byte if the registry refuses HEAD.
	StatBlob(ctx context.Context, repo Repo, d digest.Digest) (int64, error)
}

// BlobRequest names a blob, or a range of it.
type BlobRequest struct {
	Repo   Repo
	Digest digest.Digest
	// From is the offset of the first byte.
	From int64
	// To is the offset after the last byte; 0 means the end of the blob. A registry may send more, so
	// the caller stops reading at To.
	To int64
}

// BlobStream is the answer to a BlobRequest. Its bytes are not verified.
type BlobStream struct {
	// Body starts at the requested offset, or Skip bytes before it. The caller closes it.
	Body io.ReadCloser
	// Size is the length of the whole blob in bytes, -1 if unknown.
	Size int64
	// Ranges is false when the registry answered a request for a range with the whole blob.
	// Parallel requests for ranges of the blob then cost more than they gain.
	Ranges bool
	// Skip is the number of bytes before the offset, which the caller reads and drops. They may be
	// most of the blob, so a caller that looks for stalled bodies has to count them as progress.
	Skip int64
}

// Sink writes to one registry. All methods may be called concurrently. The errors are the errors of
// Source, ErrRepositoryMissing, and ErrPartsMissing.
type Sink interface {
	// PutBlob uploads one blob. If the registry or the connection fails, PutBlob starts again from
	// byte 0 in a new session, within the bounds of the Client's Options.
	PutBlob(ctx context.Context, repo Repo, b Upload) error
	// PutManifest sends a manifest byte for byte under ref. ErrPartsMissing says that a blob or
	// manifest that m names has to be sent first.
	PutManifest(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest) (Pushed, error)
	// Mount makes a blob of another repository of the same registry available in repo. False means
	// that the blob has to be uploaded.
	Mount(ctx context.Context, repo Repo, from string, d digest.Digest) (bool, error)
}

// Upload is a blob to upload.
type Upload struct {
	// Open returns a reader from byte 0. It may be called more than once. PutBlob can call Close of
	// the reader during a Read. Close must then end that Read, as with files, pipes and connections.
	Open func() (io.ReadCloser, error)
	// Size is the length in bytes, -1 if not known yet.
	Size int64
	// Digest waits until the bytes are verified and returns their digest. It is called at most once
	// per attempt, after a reader has returned io.EOF. Until it returns, the registry has no complete
	// blob.
	Digest func() (digest.Digest, error)
	// Announced is the digest that the client has announced for the bytes; empty if the client has
	// announced no digest. If the bytes have another digest, PutBlob fails.
	Announced digest.Digest
	// Accepted, when not nil, is called whenever the registry has opened an upload session.
	Accepted func()
}

// Pushed is the answer of a registry to an accepted manifest.
type Pushed struct {
	// Digest is the digest of the manifest.
	Digest digest.Digest
	// Subject is the digest in the OCI-Subject header, empty if there is none. The header says that
	// the registry lists the manifest among the referrers of Subject (spec 1.1, "Pushing Manifests
	// with Subject").
	Subject digest.Digest
}

// Lister lists the content of one registry. It passes pages on unchanged, because the registry
// decides the order of the list and how to request the next page.
type Lister interface {
	// Tags gets one page of a repository's tags. It sends the client's query (n, last, or parameters
	// of the registry), which may be nil.
	Tags(ctx context.Context, repo Repo, query url.Values) (Page, error)
	// Referrers gets one page of the manifests that refer to d. It sends the client's query
	// (artifactType), which may be nil. ErrReferrersUnsupported means that the registry does not have
	// the call. In that case, the list is the manifest with the tag oci.FallbackTag(d), if there is
	// one.
	Referrers(ctx context.Context, repo Repo, d digest.Digest, query url.Values) (Page, error)
}

// Page is one page of a listing.
type Page struct {
	// Body is the body of the registry's answer, and ContentType is its Content-Type. ECR sends the
	// JSON of its tags as text/plain.
	Body        []byte
	ContentType string
	// Next is the query of the next page; nil after the last page. It is opaque: ECR's "last" is not a
	// tag.
	Next url.Values
	// FiltersApplied is the OCI-Filters-Applied header.
	FiltersApplied string
}

// Deleter deletes from one registry. All methods may be called concurrently. The errors are the
// errors of Source, oci.ErrUnsupported if the registry has no such call, and oci.ErrDenied if the
// registry refuses to delete the content.
type Deleter interface {
	// DeleteManifest deletes a tag, or a manifest together with its tags. When the last tag of a
	// manifest is deleted, some registries (ECR) also delete the manifest.
	DeleteManifest(ctx context.Context, repo Repo, ref oci.Reference) error
	// DeleteBlob deletes a blob from a repository.
	DeleteBlob(ctx context.Context, repo Repo, d digest.Digest) error
}

// Creator creates repositories. If a repository exists already, Create returns nil.
type Creator interface {
	Create(ctx context.Context, repo string) error
}
