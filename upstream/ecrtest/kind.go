package ecrtest

import "net/http"

// Kind is the kind of a request. Faults select requests by kind, and the journal counts by kind.
// For requests to the APIs of ECR and STS, the kind is the name of the operation, such as
// "GetAuthorizationToken".
type Kind string

// The kinds of requests to the registry, the object store and CloudWatch.
const (
	KindBase           Kind = "base"
	KindToken          Kind = "token" // the Bearer token endpoint of a Hub
	KindManifestGet    Kind = "manifest-get"
	KindManifestHead   Kind = "manifest-head"
	KindManifestPut    Kind = "manifest-put"
	KindManifestDelete Kind = "manifest-delete"
	KindBlobGet        Kind = "blob-get"
	KindBlobHead       Kind = "blob-head"
	KindBlobDelete     Kind = "blob-delete"
	KindUploadStart    Kind = "upload-start"
	KindUploadPatch    Kind = "upload-patch"
	KindUploadPut      Kind = "upload-put"
	KindUploadStatus   Kind = "upload-status"
	KindUploadCancel   Kind = "upload-cancel"
	KindMount          Kind = "mount"
	KindTags           Kind = "tags"
	KindReferrers      Kind = "referrers"
	KindCatalog        Kind = "catalog"
	KindObjectGet      Kind = "s3-get"
	KindObjectHead     Kind = "s3-head"
	KindMetricPut      Kind = "cloudwatch-put"
	KindUnknown        Kind = "unknown" // no route for the path and method, or no operation
)

// operation maps a kind of request to the API operation that has the same meaning. The server uses
// it to find the IAM action and the quota of a request, because IAM actions and quotas have the
// names of API operations. AWS does not document the pairs: they are inferred from the IAM actions
// that clients need for pulls and pushes.
var operation = map[Kind]string{
	KindManifestGet:    "BatchGetImage",
	KindManifestHead:   "BatchGetImage",
	KindManifestPut:    "PutImage",
	KindManifestDelete: "BatchDeleteImage",
	KindBlobGet:        "GetDownloadUrlForLayer",
	KindBlobHead:       "BatchCheckLayerAvailability",
	KindBlobDelete:     "BatchDeleteImage",
	KindUploadStart:    "InitiateLayerUpload",
	KindMount:          "InitiateLayerUpload",
	KindUploadPatch:    "UploadLayerPart",
	KindUploadPut:      "CompleteLayerUpload",
	KindUploadStatus:   "UploadLayerPart",
	KindUploadCancel:   "UploadLayerPart",
	KindTags:           "ListImages",
	KindReferrers:      "ListImageReferrers",
	KindCatalog:        "DescribeRepositories",
}

// writes reports whether a request of this kind changes the registry or belongs to an upload.
func (k Kind) writes() bool {
	switch k {
	case KindManifestPut, KindManifestDelete, KindBlobDelete, KindUploadStart, KindMount, KindUploadPatch,
		KindUploadPut, KindUploadStatus, KindUploadCancel:
		return true
	}
	return false
}

// byMethod maps HTTP methods to the kinds of requests on one route.
type byMethod map[string]Kind

func (m byMethod) of(method string) Kind {
	if k, ok := m[method]; ok {
		return k
	}
	return KindUnknown
}

func manifestKinds() byMethod {
	return byMethod{http.MethodGet: KindManifestGet, http.MethodHead: KindManifestHead,
		http.MethodPut: KindManifestPut, http.MethodDelete: KindManifestDelete}
}

func blobKinds() byMethod {
	return byMethod{http.MethodGet: KindBlobGet, http.MethodHead: KindBlobHead, http.MethodDelete: KindBlobDelete}
}

func uploadKinds() byMethod {
	return byMethod{http.MethodPatch: KindUploadPatch, http.MethodPut: KindUploadPut,
		http.MethodGet: KindUploadStatus, http.MethodHead: KindUploadStatus, http.MethodDelete: KindUploadCancel}
}

func readKind(k Kind) byMethod { return readKinds(k, k) }

func readKinds(get, head Kind) byMethod { return byMethod{http.MethodGet: get, http.MethodHead: head} }
