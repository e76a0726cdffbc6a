package ecr

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"dray/upstream"
	"dray/upstream/auth"
)

// maybeExpiredAge is the age of a token above which a 403 without a text may mean that the token
// has expired. If the token is younger, such a 403 means that IAM does not allow the action.
const maybeExpiredAge = 15 * time.Minute

// credentialTexts returns texts by which ECR refuses a token, in lower case. The private registry
// sends these texts with 403, and the public registry sends them with 400
// (awslabs/soci-snapshotter#1196, aws/containers-roadmap#2835).
func credentialTexts() []string {
	return []string{"authorization token has expired", "authorization token is invalid"}
}

// missingPartsTexts returns texts by which ECR refuses a manifest for missing layers
// (oras-project/oras-py#54) or images (int128/docker-manifest-create-action#63), in lower case. The
// codes that ECR sends with these texts have changed over the years.
func missingPartsTexts() []string {
	return []string{"layers with digests", "images with digests"}
}

// Private returns the quirks of a private registry.
func Private() upstream.Quirks {
	return upstream.Quirks{
		RefusesEmptyBlobs:       true, // aws/containers-roadmap#1074; EmptyUploadException of the API
		MissingRepositoryCloses: true, // aws/containers-roadmap#1970
		NoUploadCancel:          true, // the API has no call to cancel an upload
		ImmutableTagAlways:      true, // ImageAlreadyExistsException of the API
		MaxPage:                 1000, // API reference, ListImages, maxResults
		Rates:                   rates(),
		CredentialTexts:         credentialTexts(),
		PermissionTexts:         permissionTexts(),
		MissingPartsTexts:       missingPartsTexts(),
		Unsupported: upstream.ManifestHints{
			Any:        "Amazon ECR answers this to manifests that its parser does not know.",
			BuildCache: "A BuildKit cache needs image-manifest=true,oci-mediatypes=true.",                                            // aws/containers-roadmap#876
			Embedded:   "It may not know content that is embedded in descriptors. Attestations of BuildKit need oci-artifact=false.", // moby/buildkit#6171
		},
		UnknownHostHint: ", above all at the region in it",
	}
}

// rates returns the quotas that the page "Amazon ECR service quotas" lists per account and region.
// AWS can raise each of them. The mapping of requests to quotas is inferred from the permissions
// that the requests need.
func rates() []upstream.Rate {
	of := func(name string, perSecond float64, classes ...upstream.Class) upstream.Rate {
		return upstream.Rate{Name: name, Classes: classes, PerSecond: perSecond}
	}
	return []upstream.Rate{
		of("BatchGetImage", 2000, upstream.ManifestGet, upstream.ManifestHead),
		of("GetDownloadUrlForLayer", 3000, upstream.BlobGet),
		of("BatchCheckLayerAvailability", 1000, upstream.BlobHead),
		of("InitiateLayerUpload", 100, upstream.UploadStart),
		of("UploadLayerPart", 500, upstream.UploadPart),
		of("CompleteLayerUpload", 100, upstream.UploadEnd),
		of("PutImage", 10, upstream.ManifestPut),
	}
}

// Public returns the quirks of ECR Public, for callers with AWS credentials or without. The rates
// of pulls come from the page "Amazon ECR Public service quotas", which names no burst. An index
// and the manifest of one platform count as two pulls (aws/aws-lambda-web-adapter#429).
func Public(credentials bool) upstream.Quirks {
	pulls := 1.0
	if credentials {
		pulls = 10
	}
	return upstream.Quirks{
		Rates: []upstream.Rate{
			{Name: string(upstream.ManifestGet), Classes: []upstream.Class{upstream.ManifestGet}, PerSecond: pulls},
		},
		BlobHeadUnsupported: true, // aws/containers-roadmap#2671: 401 for anonymous callers
		RefusesEmptyBlobs:   true,
		NoUploadCancel:      true,
		MaxPage:             1000,
		CredentialTexts:     credentialTexts(),
		PermissionTexts:     permissionTexts(),
		MissingPartsTexts:   missingPartsTexts(),
	}
}

// Expired reports whether ECR refused a request because the token is expired or invalid. Such a
// refusal has no challenge, so Expired looks for one of credentialTexts in the body. The refusal of
// a HEAD has no text. A 400 to a HEAD means that ECR does not accept the token, because dray sends
// only names and tags that are valid (aws/aws-cli#9864). With a 403 to a HEAD, the age of the token
// decides.
func Expired(r auth.Refusal) bool {
	text := bytes.ToLower(r.Body)
	if slices.ContainsFunc(credentialTexts(), func(t string) bool { return bytes.Contains(text, []byte(t)) }) {
		return true
	}
	if r.Request.Method != http.MethodHead || r.Credential.Issued.IsZero() {
		return false
	}
	return r.Status == http.StatusBadRequest || r.Status == http.StatusForbidden && time.Since(r.Credential.Issued) > maybeExpiredAge
}

// permissionTexts returns, in lower case, the texts that AWS sends if a policy does not allow an
// action (IAM User Guide, "Troubleshoot access denied error messages").
func permissionTexts() []string { return []string{"is not authorized to perform"} }
