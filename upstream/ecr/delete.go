package ecr

import (
	"context"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// DeleteAPI has the call of the ECR API that a Deleter needs. ECR's answer to DELETE over HTTP is
// not documented and has changed (aws/containers-roadmap#1229), so dray uses the API.
type DeleteAPI interface {
	BatchDeleteImage(context.Context, *ecr.BatchDeleteImageInput, ...func(*ecr.Options)) (*ecr.BatchDeleteImageOutput, error)
}

// Deleter deletes images of one registry.
type Deleter struct {
	api     DeleteAPI
	account string
}

var _ upstream.Deleter = (*Deleter)(nil)

// NewDeleter returns a Deleter. account is the ID of the registry. If it is empty, ECR uses the
// registry of the account whose credentials sign the requests.
func NewDeleter(api DeleteAPI, account string) *Deleter { return &Deleter{api: api, account: account} }

// DeleteManifest implements upstream.Deleter. When ECR deletes the last tag of an image, it also
// deletes the image (API reference, BatchDeleteImage). It refuses to delete an image that an index
// names.
func (d *Deleter) DeleteManifest(ctx context.Context, repo upstream.Repo, ref oci.Reference) error {
	id := types.ImageIdentifier{}
	if ref.ByDigest() {
		id.ImageDigest = aws.String(ref.Digest.String())
	} else {
		id.ImageTag = &ref.Tag
	}
	in := &ecr.BatchDeleteImageInput{RepositoryName: &repo.Name, ImageIds: []types.ImageIdentifier{id}}
	if d.account != "" {
		in.RegistryId = &d.account
	}
	out, err := d.api.BatchDeleteImage(ctx, in)
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case err != nil:
		return deleteError(repo.Name, err)
	case len(out.Failures) > 0:
		return deleteFailure(repo.Name, ref, out.Failures[0])
	}
	return nil
}

// DeleteBlob implements upstream.Deleter. It always fails, because the API has no such call.
func (d *Deleter) DeleteBlob(_ context.Context, repo upstream.Repo, dg digest.Digest) error {
	return oci.ErrUnsupported.With("Amazon ECR cannot delete single layers (%s of %s), and removes layers that no image needs; delete the image instead", dg, repo.Name)
}

// deleteFailure returns the error for the failure that ECR reports for an image.
func deleteFailure(repo string, ref oci.Reference, f types.ImageFailure) error {
	cause := fmt.Errorf("BatchDeleteImage: %s: %s", f.FailureCode, aws.ToString(f.FailureReason))
	switch f.FailureCode {
	case types.ImageFailureCodeImageNotFound, types.ImageFailureCodeImageTagDoesNotMatchDigest:
		return oci.ErrManifestUnknown.With("%s has no image %s", repo, ref).Because(cause)
	case types.ImageFailureCodeImageReferencedByManifestList:
		return oci.ErrDenied.With("an index refers to %s of %s; delete the index first", ref, repo).Because(cause)
	}
	return oci.ErrDenied.With("Amazon ECR did not delete %s of %s: %s", ref, repo, aws.ToString(f.FailureReason)).Because(cause)
}

// deleteError returns the error for the failure of a whole call.
func deleteError(repo string, err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return oci.ErrUnavailable.With("cannot reach Amazon ECR to delete from %s", repo).Because(fmt.Errorf("%w: %w", upstream.ErrUnreachable, err))
	}
	switch {
	case credentialCode(api):
		return oci.ErrUnavailable.With("AWS refused the credentials of this mirror for deletions from %s", repo).Because(fmt.Errorf("%w: %w", upstream.ErrCredentials, err))
	case api.ErrorCode() == "RepositoryNotFoundException":
		return oci.ErrNameUnknown.With("repository %s does not exist", repo).Because(err)
	}
	return protocolError(err, api).With("Amazon ECR does not delete from %s: %s", repo, api.ErrorMessage()).Because(err)
}
