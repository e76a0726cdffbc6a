package ecr

import (
	"bytes"
	"net/http"
	"slices"
	"time"

	"dray/upstream"
	"dray/upstream/auth"
)

// doubtful is the age from which a token may be the reason of a refusal without a text. A younger
// one was just renewed, so the refusal is the answer of IAM.
const doubtful = 15 * time.Minute

// credentialTexts are what ECR writes when the token is at fault, in lower case: with 403 the
// private registry, with 400 the public one (awslabs/soci-snapshotter#1196,
// aws/containers-roadmap#2835).
func credentialTexts() []string {
	return []string{"authorization token has expired", "authorization token is invalid"}
}

// missingPartsTexts are what ECR writes, in lower case, when it lacks layers
// (oras-project/oras-py#54) or images (int128/docker-manifest-create-action#63) that a manifest
// names. The codes beside them have changed over the years.
func missingPartsTexts() []string {
	return []string{"layers with digests", "images with digests"}
}

// Private are the quirks of a private registry.
func Private() upstream.Quirks {
	return upstream.Quirks{
		RefusesEmptyBlobs:       true, // aws/containers-roadmap#1074; EmptyUploadException of the API
		MissingRepositoryCloses: true, // aws/containers-roadmap#1970
		NoUploadCancel:          true, // the API has no call to end an upload
		ImmutableTagAlways:      true, // ImageAlreadyExistsException of the API
		MaxPage:                 1000, // API reference, ListImages, maxResults
		Rates:                   rates(),
		CredentialTexts:         credentialTexts(),
		MissingPartsTexts:       missingPartsTexts(),
		UnsupportedManifestHint: "Amazon ECR answers this to manifests that its parser does not know. " +
			"A BuildKit cache needs image-manifest=true,oci-mediatypes=true.",
	}
}

// rates are the quotas per account and region of the ECR service quotas page, all of which can be
// raised. Which requests count is inferred from the permissions that they need.
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

// Public are the quirks of ECR Public.
func Public() upstream.Quirks {
	return upstream.Quirks{
		BlobHeadUnsupported: true, // aws/containers-roadmap#2671: 401 for anonymous callers
		RefusesEmptyBlobs:   true,
		NoUploadCancel:      true,
		MaxPage:             1000,
		CredentialTexts:     credentialTexts(),
		MissingPartsTexts:   missingPartsTexts(),
	}
}

// Expired recognises ECR's refusal of an expired or invalid token, which carries no challenge. A
// refused HEAD has no text, so there the age of the token decides.
func Expired(r auth.Refusal) bool {
	text := bytes.ToLower(r.Body)
	if slices.ContainsFunc(credentialTexts(), func(t string) bool { return bytes.Contains(text, []byte(t)) }) {
		return true
	}
	return r.Request.Method == http.MethodHead && r.Status == http.StatusForbidden &&
		!r.Credential.Issued.IsZero() && time.Since(r.Credential.Issued) > doubtful
}
