package ecrtest

import "net/http"

// AuthScheme is the way in which a registry authenticates clients.
type AuthScheme string

// The schemes. The function ECR returns quirks with AuthBasic. The functions Public, Hub and Other
// return quirks with AuthBearer.
const (
	AuthBasic  AuthScheme = "basic"  // Basic with tokens of GetAuthorizationToken; no token endpoint
	AuthBearer AuthScheme = "bearer" // Bearer with a token endpoint that also serves anonymous clients
)

// Quirks are the behaviour of one kind of registry. The functions ECR, Public, Hub and Other
// return the quirks of the known kinds; a test may change a copy.
type Quirks struct {
	Name string
	Auth AuthScheme
	// HostDecides finds the registry by the Host header, and refuses host names that belong to no
	// registry.
	HostDecides bool
	// SizesHeader sends an empty Sizes header with the 401 and with manifests (wom.icu 2023-09-11,
	// roadmap#299).
	SizesHeader bool
	// SharedScope is the one scope of all tokens (ECR Public: "aws"). If it is set, the service in the
	// challenge is public.ecr.aws, and the token endpoint accepts the tokens of GetAuthorizationToken
	// as passwords. An invalid token gets a 400 and no challenge (roadmap#2835, 2026-07). If
	// SharedScope is empty, each repository has a scope of its own.
	SharedScope string
	// ErrorNewline ends the JSON of errors with a newline. The lengths of two answers of ECR Public
	// show this (lablup/backend.ai#2549): 58 bytes for the challenge, and 80 for an invalid token.
	ErrorNewline bool
	// DigestOnGet sends Docker-Content-Digest with the answer to GET of a manifest, as well as to HEAD
	// (ECR does not: roadmap#1931). The answer to PUT then has the header even if
	// Switches.ManifestPutDigest is off.
	DigestOnGet bool
	// ConvertByAccept converts between Docker schema 2 and OCI on reads by tag (ECR guide,
	// image-manifest-formats).
	ConvertByAccept bool
	// AbsoluteLocation makes Location and Link absolute URLs (distribution#2927) instead of paths.
	AbsoluteLocation bool
	// UploadUUID sends Docker-Upload-UUID with upload answers.
	UploadUUID bool
	// PatchStatus is the answer to an upload's PATCH: 201 at ECR (dotnet/sdk-container-builds#279),
	// 202 elsewhere.
	PatchStatus int
	// StaleRange is the size, in bytes, beyond which the Range of a PATCH answer does not grow
	// (roadmap#2831); 0 means no limit.
	StaleRange int64
	// MinChunk is the minimum size, in bytes, of each chunk except the last
	// (dotnet/sdk-container-builds#279); 0 means no minimum.
	MinChunk int64
	// RefuseEmptyBlobs answers 500 to an empty blob (roadmap#1074).
	RefuseEmptyBlobs bool
	// RedirectBlobs answers GET blob with a 307 to a signed URL of the object store, instead of
	// with the bytes.
	RedirectBlobs bool
	// ObjectsRefuseAuth makes the object store answer 400 to a request for a signed URL if the request
	// has an Authorization header (opa#6580).
	ObjectsRefuseAuth bool
	// BlobHeadStatus, if not 0, is the answer to every HEAD of a blob (ECR Public: 401, roadmap#2671).
	BlobHeadStatus int
	// BlobHeadType is the Content-Type of the answer to HEAD of a blob, and to a GET that is not
	// redirected (ECR: the type of a Docker config, even for layers; argocd-image-updater#216).
	BlobHeadType string
	// HideUnreferenced hides blobs from pulls until a manifest of the repository names them
	// (GetDownloadUrlForLayer).
	HideUnreferenced bool
	// StrictManifests refuses with 405 the manifests that ECR's parser does not accept.
	// RefusedManifests has examples and sources.
	StrictManifests bool
	// RefuseInvalidTags answers 400 to a read of a manifest if its reference is neither a tag nor a
	// digest (bazel-contrib/rules_oci#720, for HEAD). Without this quirk, the answer to such a read is
	// 404.
	RefuseInvalidTags bool
	// CreateRepositories creates repositories on the first push.
	CreateRepositories bool
	// MountAlways mounts every blob that the source repository has. Without this quirk, the conditions
	// of ECR apply (see Server.mount).
	MountAlways bool
	// OpaquePages lists tags in no useful order, and continues lists by a token that is not a tag
	// (docker_registry2#34).
	OpaquePages bool
	// PageSize is the size of a page if the client requests no size. MaxPageSize is the largest size
	// that a client may request; a MaxPageSize of 0 means no limit.
	PageSize, MaxPageSize int
	// ListType is the Content-Type of tags/list and _catalog.
	ListType string
	// ManifestLocation sends Location in the answer to a manifest PUT (ECR does not:
	// swift-container-plugin#27).
	ManifestLocation bool
	// RateLimitHeaders sends ratelimit-limit and ratelimit-remaining with manifests, as Docker Hub
	// does.
	RateLimitHeaders bool
}

// ECR returns the quirks of private Amazon ECR.
func ECR() Quirks {
	return Quirks{
		Name:              "ecr",
		Auth:              AuthBasic,
		HostDecides:       true,
		SizesHeader:       true,
		ConvertByAccept:   true,
		AbsoluteLocation:  true,
		PatchStatus:       http.StatusCreated,
		StaleRange:        10 << 20,
		MinChunk:          5 << 20,
		RefuseEmptyBlobs:  true,
		RedirectBlobs:     true,
		ObjectsRefuseAuth: true,
		BlobHeadType:      mediaDockerConfig,
		HideUnreferenced:  true,
		StrictManifests:   true,
		RefuseInvalidTags: true,
		OpaquePages:       true,
		PageSize:          100,
		MaxPageSize:       1000,
		ListType:          "text/plain; charset=utf-8",
	}
}

// Public returns the quirks of ECR Public. Most of them are the quirks of ECR.
func Public() Quirks {
	q := ECR()
	q.Name, q.Auth, q.HostDecides, q.SizesHeader = "ecr-public", AuthBearer, false, false
	q.SharedScope, q.ErrorNewline = "aws", true
	q.BlobHeadStatus = http.StatusUnauthorized // roadmap#2671
	return q
}

// Hub returns the quirks of a registry like Docker Hub.
func Hub() Quirks {
	return Quirks{
		Name:               "hub",
		Auth:               AuthBearer,
		DigestOnGet:        true,
		UploadUUID:         true,
		PatchStatus:        http.StatusAccepted,
		RedirectBlobs:      true,
		BlobHeadType:       "application/octet-stream",
		CreateRepositories: true,
		MountAlways:        true,
		PageSize:           100,
		ListType:           "application/json; charset=utf-8",
		ManifestLocation:   true,
		RateLimitHeaders:   true,
	}
}

// Other returns the quirks of a registry other than ECR and Docker Hub. Dialect has
// switches for the ways in which such registries differ.
func Other() Quirks {
	q := Hub()
	q.Name, q.RateLimitHeaders = "other", false
	return q
}
