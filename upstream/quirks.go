package upstream

import "dray/upstream/oci"

// Quirks are the ways in which a registry departs from the specification or from common behaviour.
// The zero value is a registry without quirks.
type Quirks struct {
	// BlobHeadUnsupported: HEAD on a blob is refused although GET is not (ECR Public). A GET of
	// one byte is sent instead.
	BlobHeadUnsupported bool
	// RefusesEmptyBlobs: a blob without bytes cannot be stored (ECR answers 500).
	RefusesEmptyBlobs bool
	// MissingRepositoryCloses: the start of an upload to a repository that does not exist may be
	// answered by a closed connection (ECR).
	MissingRepositoryCloses bool
	// NoUploadCancel: DELETE on an upload URL is not known to work (ECR), so it is not tried.
	NoUploadCancel bool
	// ImmutableTagAlways: an immutable tag is refused with TAG_INVALID even if it already has the
	// pushed digest (ECR).
	ImmutableTagAlways bool
	// MaxPage is the largest page of a listing; larger pages are refused (ECR: 1000). 0 means no
	// limit.
	MaxPage int
	// Rates are the documented ceilings on requests.
	Rates []Rate
	// CredentialTexts are texts in lower case. A refusal with status 400 or 403 that contains one of
	// them concerns the credentials and not the content.
	CredentialTexts []string
	// PermissionTexts are texts in lower case. A refusal with status 403 that contains one of them
	// says that the identity of dray lacks a right.
	PermissionTexts []string
	// MissingPartsTexts are texts in lower case. If a 4xx for a manifest contains one of them, the
	// registry lacks blobs or manifests, whatever the error code says.
	MissingPartsTexts []string
	// Unsupported is added to the text of two refusals: a 405 for a manifest, and any 4xx for an index
	// that lists blobs. It is for registries whose own text does not say what to do.
	Unsupported ManifestHints
	// UnknownHostHint is added to the advice to look at the name of the registry, if that name has no
	// address.
	UnknownHostHint string
}

// ManifestHints say why a registry may have refused a manifest, and what to do about it.
type ManifestHints struct {
	// Any begins the hint for every manifest. If it is empty, there is no hint.
	Any string
	// BuildCache follows for a build cache, and Embedded for a manifest with content in its
	// descriptors.
	BuildCache, Embedded string
}

// of returns the hint for a manifest.
func (h ManifestHints) of(m *oci.Manifest) string {
	switch {
	case h.Any == "":
		return ""
	case m.ListsBlobs() || m.BuildCache():
		return h.Any + " " + h.BuildCache
	case m.Embeds():
		return h.Any + " " + h.Embedded
	}
	return h.Any
}
