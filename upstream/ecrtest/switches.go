package ecrtest

import (
	"net/http"
	"time"
)

// Switches hold the behaviour of ECR for which the evidence is missing or contradictory. A
// client of the real service must work with any value. DefaultSwitches returns the likelier
// ones.
type Switches struct {
	// InvalidTokenStatus answers a token that was never issued, or not for this region: 403 or 400
	// (the text is attested by kargo#3482, the status only for ECR Public, where it is 400).
	InvalidTokenStatus int `json:"invalidTokenStatus"`
	// HostUnknownStatus answers a Host that names no registry: 400 or 404 (docker-registry-ui#255
	// shows only the text).
	HostUnknownStatus int `json:"hostUnknownStatus"`
	// DeniedMissingStatus answers a request without rights for a repository that does not exist:
	// 403 or 404.
	DeniedMissingStatus int `json:"deniedMissingStatus"`
	// MissingRepositoryHangsUp closes the connection on POST upload to a missing repository
	// (roadmap#1970); off: 404 NAME_UNKNOWN (ECR guide, common errors).
	MissingRepositoryHangsUp bool `json:"missingRepositoryHangsUp"`
	// DeniedUploadHangsUp closes the connection on POST upload without ecr:InitiateLayerUpload
	// (roadmap#1970); off: 403.
	DeniedUploadHangsUp bool `json:"deniedUploadHangsUp"`
	// InlineConfigs serves blobs that a manifest names as its config without a redirect; off: by
	// redirect, like layers.
	InlineConfigs bool `json:"inlineConfigs"`
	// UnreferencedBlobStatus answers GET of a blob that no manifest names: 404 or 403 (the API has
	// LayerInaccessibleException; the registry's answer is not known).
	UnreferencedBlobStatus int `json:"unreferencedBlobStatus"`
	// SinglePost completes POST …/uploads/?digest= with a body; off: the body is ignored and a
	// session starts (202).
	SinglePost bool `json:"singlePost"`
	// UploadStatus answers GET of an upload with 204 and Range; off: 404.
	UploadStatus bool `json:"uploadStatus"`
	// UploadCancel answers DELETE of an upload with 204; off: 404, and the session stays.
	UploadCancel bool `json:"uploadCancel"`
	// UploadLife is the life of a session: one third party says 12 h.
	UploadLife time.Duration `json:"uploadLife"`
	// DigestMismatchStatus answers an upload whose bytes have another digest: 400 or 404.
	DigestMismatchStatus int `json:"digestMismatchStatus"`
	// SmallChunkAtOnce refuses the chunk after one below 5 MiB; off: the upload is refused on
	// completion, like LayerPartTooSmallException in the API.
	SmallChunkAtOnce bool `json:"smallChunkAtOnce"`
	// ManifestPutDigest sends Docker-Content-Digest in the answer to a manifest PUT. Reports of
	// 2016–2017 say no. docker 20 fails without it, so today's ECR is likely to send it.
	ManifestPutDigest bool `json:"manifestPutDigest"`
	// MissingImages answers an index that names missing images: MANIFEST_BLOB_UNKNOWN, which
	// docker shows as "manifest blob unknown: Images with digests …"
	// (int128/docker-manifest-create-action#63, 2023). The status, 404 or 400, was not shown.
	MissingImages Refusal `json:"missingImages"`
	// MissingLayers answers an image that names missing layers: BLOB_UPLOAD_UNKNOWN with "Layers
	// with digests …" (the JSON is in oras-project/oras-py#54, 2022-12; docker's "blob upload
	// unknown" in mapbox/ecs-conex#50, 2016), or MANIFEST_BLOB_UNKNOWN, the code of the
	// specification. The status, 404 or 400, was not shown.
	MissingLayers Refusal `json:"missingLayers"`
	// ManifestTooLargeStatus answers a manifest over 4,194,304 bytes: 405 or 413.
	ManifestTooLargeStatus int `json:"manifestTooLargeStatus"`
	// PageSizeStatus answers n above 1000: 405 or 400.
	PageSizeStatus int `json:"pageSizeStatus"`
	// CatalogPages pages _catalog; off: all names are sent at once, and n is ignored.
	CatalogPages bool `json:"catalogPages"`
	// NoReferrersStatus answers a request for referrers if there are none: 200 with an empty
	// index, or 404.
	NoReferrersStatus int `json:"noReferrersStatus"`
	// SubjectHeader sends OCI-Subject in the answer to the PUT of a manifest with a subject.
	SubjectHeader bool `json:"subjectHeader"`
	// FiltersReferrers filters by artifactType and sends OCI-Filters-Applied; off: the query is
	// ignored.
	FiltersReferrers bool `json:"filtersReferrers"`
	// ReferrersPageSize pages referrers with a Link header; 0: all at once. The maximum of the API
	// is 50.
	ReferrersPageSize int `json:"referrersPageSize"`
	// ManifestDeleteStatus answers DELETE of a manifest: 202, or 404 with ECR's old text
	// (roadmap#1229).
	ManifestDeleteStatus int `json:"manifestDeleteStatus"`
	// DeleteTagOnly makes DELETE by tag delete the tag, and the image with its last tag; off: the
	// image with all its tags.
	DeleteTagOnly bool `json:"deleteTagOnly"`
	// BlobDelete answers DELETE of a blob with 202; off: 405.
	BlobDelete bool `json:"blobDelete"`
	// RetryAfter is sent with 429, in whole seconds; 0: no header.
	RetryAfter time.Duration `json:"retryAfter"`
	// HeadRecordsPull and BlobRecordsPull make HEAD manifest and GET blob count as pulls. GET
	// manifest counts unless ManifestGetSilent is on. Which request moves lastRecordedPullTime is
	// not known.
	ManifestGetSilent bool `json:"manifestGetSilent"`
	HeadRecordsPull   bool `json:"headRecordsPull"`
	BlobRecordsPull   bool `json:"blobRecordsPull"`
	// ConvertIndexes also converts indexes and manifest lists by tag; off: only images.
	ConvertIndexes bool `json:"convertIndexes"`
	// ConvertedByDigest also serves the result of a conversion by its digest; off: 404, since ECR
	// never converts by digest.
	ConvertedByDigest bool `json:"convertedByDigest"`
	// RefuseUnacceptable answers 404 if Accept names no form in which the manifest is available;
	// off: the stored form is sent.
	RefuseUnacceptable bool `json:"refuseUnacceptable"`
	// RefuseInlineData answers 405 to manifests whose descriptors embed data, a possible cause of
	// moby/buildkit#5747.
	RefuseInlineData bool `json:"refuseInlineData"`
	// MetricLimitGzipped applies CloudWatch's limit of 1 MB to the body as sent; off: after
	// decompression.
	MetricLimitGzipped bool `json:"metricLimitGzipped"`
	// PullThroughDigestMissing answers 404 to the first pull by digest of an image that is not
	// cached yet (roadmap#2837).
	PullThroughDigestMissing bool `json:"pullThroughDigestMissing"`
}

// Refusal is the status and code of an answer with a known text.
type Refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
}

// DefaultSwitches returns the likelier value of each switch.
func DefaultSwitches() Switches {
	return Switches{
		InvalidTokenStatus:     http.StatusForbidden,
		HostUnknownStatus:      http.StatusBadRequest,
		DeniedMissingStatus:    http.StatusForbidden,
		UnreferencedBlobStatus: http.StatusNotFound,
		UploadLife:             12 * time.Hour,
		DigestMismatchStatus:   http.StatusBadRequest,
		ManifestPutDigest:      true,
		MissingImages:          Refusal{http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN"},
		MissingLayers:          Refusal{http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN"},
		ManifestTooLargeStatus: http.StatusMethodNotAllowed,
		PageSizeStatus:         http.StatusMethodNotAllowed,
		NoReferrersStatus:      http.StatusOK,
		ManifestDeleteStatus:   http.StatusAccepted,
		DeleteTagOnly:          true,
	}
}
