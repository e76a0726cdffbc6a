package ecrtest

import (
	"net/http"
	"time"
)

// Switches choose the behaviour of ECR where the evidence is missing or contradictory. A client of
// the real service must work with any value. The comment of each field names its sources with their
// dates. A date after "read" is when the source was read. The words after "off:" say what happens
// while the switch is off.
type Switches struct {
	// InvalidTokenStatus is the answer to a token that was never issued, or was issued for another
	// region. It is 400 according to three sources, one of them the staff of AWS (aws-cli#5317,
	// eks-anywhere#3919, and aws-cli#9864 of 2025-11). The other value is 403, the answer to an
	// expired token.
	InvalidTokenStatus int `json:"invalidTokenStatus"`
	// HostUnknownStatus is the answer to a Host that names no registry: 400 or 404
	// (docker-registry-ui#255 shows only the text; read 2026-11).
	HostUnknownStatus int `json:"hostUnknownStatus"`
	// DeniedMissingStatus is the answer to a request without rights for a repository that does not
	// exist: 403 or 404 (no source, 2026-11).
	DeniedMissingStatus int `json:"deniedMissingStatus"`
	// MissingRepositoryHangsUp closes the connection on POST upload to a missing repository
	// (roadmap#1970, read 2026-11); off: 404 NAME_UNKNOWN (ECR guide, common errors).
	MissingRepositoryHangsUp bool `json:"missingRepositoryHangsUp"`
	// DeniedUploadHangsUp closes the connection on POST upload by a principal without the right
	// ecr:InitiateLayerUpload (roadmap#1970, read 2026-11); off: 403.
	DeniedUploadHangsUp bool `json:"deniedUploadHangsUp"`
	// CreationDelay is how long requests do not find a repository after the API has created it.
	// Creation is asynchronous; AWS support says to wait about a second (terraform-provider-aws#3849,
	// read 2026-11). The report is about DescribeRepositories. Nobody has shown whether pushes have to
	// wait, too.
	CreationDelay time.Duration `json:"creationDelay"`
	// InlineConfigs serves a blob without a redirect if a manifest names it as its config; off: the
	// server redirects, as for layers (no source, 2026-11).
	InlineConfigs bool `json:"inlineConfigs"`
	// UnreferencedBlobStatus is the answer to GET of a blob that no manifest names, or that only
	// manifests of archived images name: 404 or 403 (the API has LayerInaccessibleException; the
	// registry's answer is not known, 2026-11).
	UnreferencedBlobStatus int `json:"unreferencedBlobStatus"`
	// ArchivedHeadStatus is the answer to HEAD of a blob that only archived images name: 404, or 200
	// because the registry does have the blob (the API says ARCHIVED in place of AVAILABLE; the
	// registry's answer is not known, 2026-11).
	ArchivedHeadStatus int `json:"archivedHeadStatus"`
	// MultiRangeStatus is the answer to a GET that asks for several ranges of an object: 200 with the
	// whole object, or 416. S3 does not support such a GET (reference of GetObject, 2026-11).
	MultiRangeStatus int `json:"multiRangeStatus"`
	// SinglePost completes an upload by a POST …/uploads/?digest= that has the bytes as its body; off:
	// the server ignores the body and starts a session (202; no source, 2026-11).
	SinglePost bool `json:"singlePost"`
	// UploadStatus answers GET of an upload with 204 and Range; off: 404, as seen at ECR Public
	// (dotnet/sdk#33019, read 2026-11).
	UploadStatus bool `json:"uploadStatus"`
	// UploadCancel answers DELETE of an upload with 204; off: 404, and the session stays (no source,
	// 2026-11; the API has no such call).
	UploadCancel bool `json:"uploadCancel"`
	// UploadLife is the life of a session: one third party says 12 h (documentation of ocync, read
	// 2026-11).
	UploadLife time.Duration `json:"uploadLife"`
	// DigestMismatchStatus is the answer to an upload whose bytes have another digest: 400 or 404
	// (dotnet/sdk-container-builds#424 shows only the text; read 2026-11).
	DigestMismatchStatus int `json:"digestMismatchStatus"`
	// SmallChunkAtOnce refuses a chunk that follows a chunk below 5 MiB; off: the server refuses the
	// upload on completion, as the API does with LayerPartTooSmallException (ECR model, 2026-08).
	SmallChunkAtOnce bool `json:"smallChunkAtOnce"`
	// ManifestPutDigest sends Docker-Content-Digest in the answer to a manifest PUT. Reports of
	// 2016–2017 say that ECR does not (google/containerregistry#10). docker 20 fails without the
	// header, so today's ECR is likely to send the header.
	ManifestPutDigest bool `json:"manifestPutDigest"`
	// MissingImages is the answer to an index that names missing images: MANIFEST_BLOB_UNKNOWN, which
	// docker shows as "manifest blob unknown: Images with digests …"
	// (int128/docker-manifest-create-action#63, 2023). The report does not show whether the status is
	// 404 or 400.
	MissingImages Refusal `json:"missingImages"`
	// MissingLayers is the answer to an image that names missing layers: MANIFEST_BLOB_UNKNOWN (the
	// code of the specification), or BLOB_UPLOAD_UNKNOWN with "Layers with digests …"
	// (oras-project/oras-py#54, 2022-12, shows the JSON; mapbox/ecs-conex#50, 2016, shows docker's
	// "blob upload unknown"). The reports do not show whether the status is 404 or 400.
	MissingLayers Refusal `json:"missingLayers"`
	// TooManyTags is the answer to a push of one more tag for an image that has 1,000 tags. The quota
	// and the API's LimitExceededException are documented (service quotas, ECR model, 2026-08). The
	// registry's answer is not documented.
	TooManyTags Refusal `json:"tooManyTags"`
	// ManifestTooLargeStatus is the answer to a manifest over 4,194,304 bytes: 405 or 413 (the limit
	// is in the ECR model; the answer has no source, 2026-11).
	ManifestTooLargeStatus int `json:"manifestTooLargeStatus"`
	// PageSizeStatus is the answer to an invalid n or cursor, such as n above 1000: 405 or 400
	// (go-containerregistry#681 shows only the text; read 2026-11).
	PageSizeStatus int `json:"pageSizeStatus"`
	// CatalogPages sends _catalog in pages; off: the server sends all names at once, and ignores a
	// valid n (reports disagree, 2026-11).
	CatalogPages bool `json:"catalogPages"`
	// NoReferrersStatus is the answer to a request for referrers if there are none: 200 with an empty
	// index, or 404 (no source, 2026-11).
	NoReferrersStatus int `json:"noReferrersStatus"`
	// SubjectHeader sends OCI-Subject in the answer to the PUT of a manifest with a subject (no
	// source, 2026-11).
	SubjectHeader bool `json:"subjectHeader"`
	// FiltersReferrers filters by artifactType and sends OCI-Filters-Applied; off: the server ignores
	// the query (no source, 2026-11; ListImageReferrers of the API can filter).
	FiltersReferrers bool `json:"filtersReferrers"`
	// ReferrersPageSize is how many referrers a page has; a Link header leads to the next page. 0
	// sends all referrers at once. The maximum of the API is 50 (ECR model, 2026-08); the registry's
	// answer has no source.
	ReferrersPageSize int `json:"referrersPageSize"`
	// ManifestDeleteStatus is the answer to DELETE of a manifest: 202, or 404 with the text
	// "404 page not found", which ECR sent until it supported this DELETE (roadmap#1229, shipped
	// 2023-05).
	ManifestDeleteStatus int `json:"manifestDeleteStatus"`
	// DeleteTagOnly makes DELETE by tag delete the tag, and also the image if it has no other tag;
	// off: DELETE by tag deletes the image with all its tags (no source, 2026-11; the API's
	// BatchDeleteImage does what DELETE does with this switch on).
	DeleteTagOnly bool `json:"deleteTagOnly"`
	// BlobDelete answers DELETE of a blob with 202; off: 405 (no source, 2026-11).
	BlobDelete bool `json:"blobDelete"`
	// RetryAfter is sent with 429, in whole seconds; 0 means no header (no source, 2026-11).
	RetryAfter time.Duration `json:"retryAfter"`
	// ManifestGetSilent, HeadRecordsPull and BlobRecordsPull say which requests set
	// lastRecordedPullTime: GET of a manifest unless ManifestGetSilent is on, HEAD of a manifest if
	// HeadRecordsPull is on, and GET of a blob if BlobRecordsPull is on. AWS only speaks of a "pull"
	// (ECR model, 2026-08).
	ManifestGetSilent bool `json:"manifestGetSilent"`
	HeadRecordsPull   bool `json:"headRecordsPull"`
	BlobRecordsPull   bool `json:"blobRecordsPull"`
	// ConvertIndexes makes a request by tag also convert indexes and manifest lists to the format that
	// the client accepts; off: it converts only images (the table of the ECR guide,
	// image-manifest-formats, has only images; 2026-11).
	ConvertIndexes bool `json:"convertIndexes"`
	// ConvertedByDigest also serves a converted manifest under the digest that it has after the
	// conversion; off: 404, because ECR never converts by digest (ECR guide, image-manifest-formats,
	// 2026-11).
	ConvertedByDigest bool `json:"convertedByDigest"`
	// RefuseUnacceptable answers 404 if Accept names no form in which the manifest is available; off:
	// the server sends the stored form (no source, 2026-11).
	RefuseUnacceptable bool `json:"refuseUnacceptable"`
	// RefuseInlineData answers 405 to manifests whose descriptors embed data, other than the empty
	// JSON of artifacts. It has no effect on ECR Public, which refused such manifests only in the past
	// (roadmap#2023, 2023-05). Private ECR still refuses attestations of BuildKit (buildkit#6171,
	// 2025-09).
	RefuseInlineData bool `json:"refuseInlineData"`
	// RefuseEmptyData answers 405 also to an embedded empty JSON, as oras sends it. AWS shows how to
	// use oras with ECR (open source blog on OCI 1.1, 2024), so ECR seems to accept it. But ECR
	// refused attestations of BuildKit (buildkit#6171, 2025-09) and copied SBOMs (roadmap#2783,
	// 2026-03) that embed an empty JSON, too.
	RefuseEmptyData bool `json:"refuseEmptyData"`
	// TakeOddManifests accepts manifests whose schemaVersion or Content-Type contradicts their media
	// type, and indexes without manifests; off: 405 (no source, 2026-11).
	TakeOddManifests bool `json:"takeOddManifests"`
	// MetricLimitGzipped applies CloudWatch's limit of 1 MB to the body as sent; off: to the
	// decompressed body (no source, 2026-11).
	MetricLimitGzipped bool `json:"metricLimitGzipped"`
	// PullThroughDigestMissing answers 404 to the first pull by digest of an image that is not
	// cached yet (roadmap#2837, 2026-07).
	PullThroughDigestMissing bool `json:"pullThroughDigestMissing"`
	// PullThroughRedirects concerns the first GET of a blob that a pull-through rule has not cached
	// yet. It redirects this GET to the place where the upstream keeps the blob
	// (production.cloudflare.docker.com in roadmap#2304, read 2026-11); off: the server first caches
	// the blob, and then serves it like other blobs.
	PullThroughRedirects bool `json:"pullThroughRedirects"`
}

// Refusal is the status and code of an answer with a known text.
type Refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
}

// DefaultSwitches returns for each switch the value that the evidence supports or, without
// evidence, the more likely value.
func DefaultSwitches() Switches {
	return Switches{
		InvalidTokenStatus:     http.StatusBadRequest,
		HostUnknownStatus:      http.StatusBadRequest,
		DeniedMissingStatus:    http.StatusForbidden,
		CreationDelay:          time.Second,
		UnreferencedBlobStatus: http.StatusNotFound,
		ArchivedHeadStatus:     http.StatusNotFound,
		MultiRangeStatus:       http.StatusOK,
		UploadLife:             12 * time.Hour,
		DigestMismatchStatus:   http.StatusBadRequest,
		ManifestPutDigest:      true,
		MissingImages:          Refusal{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN"},
		MissingLayers:          Refusal{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"},
		TooManyTags:            Refusal{http.StatusForbidden, "DENIED"},
		ManifestTooLargeStatus: http.StatusMethodNotAllowed,
		PageSizeStatus:         http.StatusMethodNotAllowed,
		NoReferrersStatus:      http.StatusOK,
		ManifestDeleteStatus:   http.StatusAccepted,
		DeleteTagOnly:          true,
		RefuseInlineData:       true,
		PullThroughRedirects:   true,
	}
}
