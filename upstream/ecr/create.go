package ecr

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"

	"dray/upstream"
	"dray/upstream/oci"
)

// CreateAPI is the one call of the ECR API that creating needs.
type CreateAPI interface {
	CreateRepository(context.Context, *ecr.CreateRepositoryInput, ...func(*ecr.Options)) (*ecr.CreateRepositoryOutput, error)
}

// Template is how repositories are created. The zero value leaves everything to ECR's defaults.
type Template struct {
	// ImmutableTags forbids that a tag is pushed again with another image.
	ImmutableTags bool
	// MutableTagFilters are wildcard patterns of tags that stay mutable all the same, at most five.
	MutableTagFilters []string
	// ScanOnPush asks for a scan of every image. The registry's own scanning configuration goes before it.
	ScanOnPush bool
	// KMS encrypts with AWS KMS in place of AES-256, with KMSKey, or with the AWS managed key when that is empty.
	KMS    bool
	KMSKey string
	// Tags are put on the repository.
	Tags map[string]string
}

// Creator creates repositories of one registry.
type Creator struct {
	api      CreateAPI
	account  string
	template Template
}

var _ upstream.Creator = (*Creator)(nil)

// NewCreator returns a Creator. account is the registry id, empty for the principal's own.
func NewCreator(api CreateAPI, account string, t Template) *Creator {
	return &Creator{api: api, account: account, template: t}
}

// Create creates a repository. One that exists already is success. The errors are *oci.Error: ErrDenied with the text of
// AWS where the principal may not or a quota is reached, ErrNameInvalid, ErrTooManyRequests, ErrUnavailable.
func (c *Creator) Create(ctx context.Context, repo string) error {
	_, err := c.api.CreateRepository(ctx, c.input(repo))
	if _, ok := errors.AsType[*types.RepositoryAlreadyExistsException](err); ok || err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Cause(ctx)
	}
	return createError(repo, err)
}

func createError(repo string, err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return oci.ErrUnavailable.With("the repository %s does not exist, and Amazon ECR cannot be reached to create it", repo).Because(err)
	}
	if credentialCode(api) {
		return oci.ErrUnavailable.With("the repository %s does not exist, and AWS refuses the credentials of this mirror to create it", repo).
			Because(fmt.Errorf("%w: %w", upstream.ErrCredentials, err))
	}
	base := baseOf(api)
	e := base.With("the repository %s does not exist and cannot be created: %s", repo, api.ErrorMessage())
	if base == oci.ErrDenied {
		e.Status = http.StatusForbidden
	}
	return e.Because(err)
}

// baseOf is the error of the protocol that comes nearest to one of the API.
func baseOf(api smithy.APIError) *oci.Error {
	switch api.ErrorCode() {
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded":
		return oci.ErrTooManyRequests
	case "InvalidParameterException":
		return oci.ErrNameInvalid
	case "ServerException", "InternalFailure", "ServiceUnavailable":
		return oci.ErrUnavailable
	}
	return oci.ErrDenied
}

// credentialCode reports an error of the API that is about who asks, and not about what.
func credentialCode(api smithy.APIError) bool {
	switch api.ErrorCode() {
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException":
		return true
	}
	return false
}

func (c *Creator) input(repo string) *ecr.CreateRepositoryInput {
	in := &ecr.CreateRepositoryInput{RepositoryName: &repo}
	if c.account != "" {
		in.RegistryId = &c.account
	}
	t := c.template
	if t.ImmutableTags {
		in.ImageTagMutability = types.ImageTagMutabilityImmutable
		for _, f := range t.MutableTagFilters {
			in.ImageTagMutability = types.ImageTagMutabilityImmutableWithExclusion
			in.ImageTagMutabilityExclusionFilters = append(in.ImageTagMutabilityExclusionFilters, types.ImageTagMutabilityExclusionFilter{
				Filter: aws.String(f), FilterType: types.ImageTagMutabilityExclusionFilterTypeWildcard,
			})
		}
	}
	if t.ScanOnPush {
		in.ImageScanningConfiguration = &types.ImageScanningConfiguration{ScanOnPush: true}
	}
	if t.KMS {
		in.EncryptionConfiguration = &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeKms}
		if t.KMSKey != "" {
			in.EncryptionConfiguration.KmsKey = &t.KMSKey
		}
	}
	for _, k := range slices.Sorted(maps.Keys(t.Tags)) {
		in.Tags = append(in.Tags, types.Tag{Key: aws.String(k), Value: aws.String(t.Tags[k])})
	}
	return in
}
