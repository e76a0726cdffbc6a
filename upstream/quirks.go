package upstream

import "dray/upstream/oci"

// Quirks are the ways in which a registry departs from the specification or from common behaviour.
// The zero value is a registry without quirks.
type Quirks struct {
	// BlobHeadUnsupported: the registry refuses HEAD on a blob but accepts GET (ECR Public). dray
	// sends a GET of one byte instead.
	BlobHeadUnsupported bool
	// RefusesEmptyBlobs: the registry cannot store a blob without bytes (ECR answers 500).
	RefusesEmptyBlobs bool
	// MissingRepositoryCloses: the registry may close the connection without an answer when an upload
	// to a missing repository starts (ECR).
	MissingRepositoryCloses bool
	// NoUploadCancel: DELETE on an upload URL is not known to work (ECR), so dray does not send it.
	NoUploadCancel bool
	// ImmutableTagAlways: the registry refuses a push to an immutable tag with TAG_INVALID even if the
	// tag already has the pushed digest (ECR).
	ImmutableTagAlways bool
	// MaxPage is the largest number of entries that a client may request in a page of a listing (ECR:
	// 1000). 0 means no limit.
	MaxPage int
	// Rates are the documented ceilings on requests.
	Rates []Rate
	// CredentialTexts are texts in lower case. If a refusal with status 400 or 403 contains one of
	// these texts, it concerns the credentials and not the content.
	CredentialTexts []string
	// PermissionTexts are texts in lower case. If a refusal with status 403 contains one of these
	// texts, the identity of dray lacks a right.
	PermissionTexts []string
	// MissingPartsTexts are texts in lower case. If a 4xx for a manifest contains one of these texts,
	// the registry lacks blobs or manifests, whatever the error code says.
	MissingPartsTexts []string
	// Unsupported is added to the text of two refusals: a 405 for a manifest, and any 4xx for an index
	// that lists blobs. It is for registries whose own text does not say what to do.
	Unsupported ManifestHints
	// UnknownHostHint is the end of the error text for a registry whose name has no address. The text
	// before it advises the user to check that name.
	UnknownHostHint string
}

// ManifestHints say why a registry may have refused a manifest, and what to do about it.
type ManifestHints struct {
	// Any is the first part of the hint, for every manifest. If Any is empty, there is no hint.
	Any string
	// BuildCache is added after Any for a build cache, and for any index that lists blobs. Embedded is
	// added after Any for other manifests with content in their descriptors.
	BuildCache, Embedded string
}

// [ManifestHints.of] returns the hint for a manifest.
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
