package upstream

import (
	"context"
	"io"
	"net/url"

	"github.com/opencontainers/go-digest"

	"dray/upstream/oci"
)

// Source reads one registry. All methods may be called concurrently. Errors: the registry's own
// answer as *oci.Error (oci.ErrManifestUnknown, oci.ErrBlobUnknown, oci.ErrDenied,
// oci.ErrTooManyRequests …), ErrUnreachable, ErrCredentials, ErrCorrupt. The error of a cancelled
// context is returned as it is.
type Source interface {
	// Manifest gets a manifest with 1 GET. The digest is computed, and compared with a digest asked
	// for and with the one the registry states. accept are the client's Accept lines, sent
	// unchanged.
	Manifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (*oci.Manifest, error)
	// StatManifest describes a manifest with 1 HEAD, or with 1 GET more where the registry's HEAD
	// names no digest.
	StatManifest(ctx context.Context, repo Repo, ref oci.Reference, accept []string) (oci.Descriptor, error)
	// Blob opens a blob with 1 GET and its redirect. ctx covers the reading of the body too.
	Blob(ctx context.Context, r BlobRequest) (BlobStream, error)
	// StatBlob gives a blob's size in bytes (-1: not told), with 1 HEAD or what the registry has
	// instead.
	StatBlob(ctx context.Context, repo Repo, d digest.Digest) (int64, error)
}

// BlobRequest says which bytes of a blob are asked for.
type BlobRequest struct {
	Repo   Repo
	Digest digest.Digest
	// From is the offset of the first byte.
	From int64
	// To is the offset after the last byte; 0 asks for all that follow From. A registry may send
	// more: the caller stops reading there.
	To int64
}

// BlobStream is a blob on its way. The bytes are not verified.
type BlobStream struct {
	// Body begins at the offset asked for, or Skip bytes before it. The caller closes it.
	Body io.ReadCloser
	// Size is that of the whole blob in bytes, -1 when not known.
	Size int64
	// Ranges is false when a range was asked for and the registry sent the whole blob all the same:
	// asking for several ranges at once then costs more than it gains.
	Ranges bool
	// Skip is how many bytes come before the offset, for the caller to read and drop. They may be
	// most of the blob, and only who reads them sees that there is progress.
	Skip int64
}

// Sink writes to one registry. All methods may be called concurrently. Errors are those of Source,
// and ErrRepositoryMissing.
type Sink interface {
	// PutBlob uploads one blob. It is repeated from byte 0 in a fresh session when the registry or
	// the connection fails, within the bounds of the Client's Options.
	PutBlob(ctx context.Context, repo Repo, b Upload) error
	// PutManifest sends a manifest byte for byte under ref. ErrPartsMissing says that something
	// that it names has to be sent first.
	PutManifest(ctx context.Context, repo Repo, ref oci.Reference, m *oci.Manifest) (Pushed, error)
	// Mount makes a blob of another repository of the same registry visible in repo. False means
	// that the registry wants it uploaded.
	Mount(ctx context.Context, repo Repo, from string, d digest.Digest) (bool, error)
}

// Upload is a blob to be sent.
type Upload struct {
	// Open gives the blob from byte 0; it may be called again. Close may come while a Read is under
	// way and must end it, as it does for files, pipes and connections.
	Open func() (io.ReadCloser, error)
	// Size is the length in bytes, -1 when not known yet.
	Size int64
	// Digest waits until the bytes are verified and gives their digest. It is called once a reader
	// has given io.EOF, once per attempt; until it returns, the registry has no complete blob.
	Digest func() (digest.Digest, error)
	// Announced is the digest that the bytes will turn out to have, where that is known from the
	// start. With Size it allows the upload in one request that some registries prefer. Empty means
	// not known.
	Announced digest.Digest
	// Accepted, when not nil, is called when the registry has opened an upload session, once per
	// session.
	Accepted func()
}

// Pushed is what a registry says about an accepted manifest.
type Pushed struct {
	// Digest is the manifest's.
	Digest digest.Digest
	// Subject is the OCI-Subject header: the registry lists the manifest among the referrers of
	// that digest (spec 1.1, "Pushing Manifests with Subject"). Empty when the header is missing.
	Subject digest.Digest
}

// Lister lists what one registry holds. Pages are passed through as they are, because their order
// and their continuation belong to the registry.
type Lister interface {
	// Tags gets one page of a repository's tags. query is the client's (n, last); it may be nil.
	Tags(ctx context.Context, repo Repo, query url.Values) (Page, error)
	// Referrers gets one page of the manifests that refer to d. query is the client's
	// (artifactType); it may be nil. ErrReferrersUnsupported tells that the registry does not have
	// the call: the list is then the manifest under the tag FallbackTag(d), if there is one.
	Referrers(ctx context.Context, repo Repo, d digest.Digest, query url.Values) (Page, error)
}

// Page is one page of a listing.
type Page struct {
	// Body and ContentType are the registry's. ECR labels the JSON of its tags text/plain.
	Body        []byte
	ContentType string
	// Next is the query of the next page; nil after the last one. It is opaque: ECR's "last" is not
	// a tag.
	Next url.Values
	// FiltersApplied is the OCI-Filters-Applied header.
	FiltersApplied string
}

// Deleter deletes from one registry. All methods may be called concurrently. Errors are those of
// Source; oci.ErrUnsupported says that the registry has no such call, and oci.ErrDenied that it
// wants to keep what was named.
type Deleter interface {
	// DeleteManifest deletes a tag, or a manifest together with its tags. Some registries (ECR)
	// also drop a manifest with its last tag.
	DeleteManifest(ctx context.Context, repo Repo, ref oci.Reference) error
	// DeleteBlob takes a blob out of a repository.
	DeleteBlob(ctx context.Context, repo Repo, d digest.Digest) error
}

// Creator creates repositories. An existing repository is success.
type Creator interface {
	Create(ctx context.Context, repo string) error
}

// FallbackTag is the tag under which a registry without the referrers call keeps the referrers of d
// (spec 1.1, "Referrers Tag Schema").
func FallbackTag(d digest.Digest) string {
	const maxAlgorithm, maxEncoded = 32, 64
	a, e := d.Algorithm().String(), d.Encoded()
	return a[:min(len(a), maxAlgorithm)] + "-" + e[:min(len(e), maxEncoded)]
}
