package ecr

import (
	"context"
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

type deleteAPI struct {
	in  *ecr.BatchDeleteImageInput
	out ecr.BatchDeleteImageOutput
	err error
}

func (a *deleteAPI) BatchDeleteImage(_ context.Context, in *ecr.BatchDeleteImageInput, _ ...func(*ecr.Options)) (*ecr.BatchDeleteImageOutput, error) {
	a.in = in
	return &a.out, a.err
}

// Each answer of the API, as an error of the protocol with the status that fits.
func TestDeleteErrors(t *testing.T) {
	failure := func(code types.ImageFailureCode) *deleteAPI {
		return &deleteAPI{out: ecr.BatchDeleteImageOutput{Failures: []types.ImageFailure{{FailureCode: code, FailureReason: aws.String("because")}}}}
	}
	exception := func(code string) *deleteAPI {
		return &deleteAPI{err: &smithy.GenericAPIError{Code: code, Message: "because"}}
	}
	for name, c := range map[string]struct {
		api    *deleteAPI
		want   error
		status int
	}{
		"image not found":  {failure(types.ImageFailureCodeImageNotFound), oci.ErrManifestUnknown, 404},
		"in an index":      {failure(types.ImageFailureCodeImageReferencedByManifestList), oci.ErrDenied, 403},
		"another failure":  {failure(types.ImageFailureCodeKmsError), oci.ErrDenied, 403},
		"no repository":    {exception("RepositoryNotFoundException"), oci.ErrNameUnknown, 404},
		"no right":         {exception("AccessDeniedException"), oci.ErrDenied, 403},
		"throttled":        {exception("ThrottlingException"), oci.ErrTooManyRequests, 429},
		"broken":           {&deleteAPI{err: answered(500, &types.ServerException{})}, oci.ErrUnavailable, 503},
		"credentials":      {exception("ExpiredTokenException"), upstream.ErrCredentials, 503},
		"nobody answers":   {&deleteAPI{err: errors.New("dial")}, upstream.ErrUnreachable, 503},
		"nothing is wrong": {&deleteAPI{}, nil, 0},
	} {
		err := NewDeleter(c.api, "123456789012").DeleteManifest(t.Context(), upstream.Repo{Name: "a/b"}, oci.Reference{Tag: "v1"})
		if !errors.Is(err, c.want) || err != nil && oci.AsError(err).Status != c.status {
			t.Errorf("%s: %v, want %v with status %d", name, err, c.want, c.status)
		}
		if id := c.api.in.ImageIds; len(id) != 1 || aws.ToString(id[0].ImageTag) != "v1" || id[0].ImageDigest != nil || aws.ToString(c.api.in.RegistryId) != "123456789012" {
			t.Errorf("%s: asked for %+v", name, c.api.in)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	api := &deleteAPI{err: context.Canceled}
	err := NewDeleter(api, "").DeleteManifest(ctx, upstream.Repo{Name: "a/b"}, oci.Reference{Digest: digest.FromString("x")})
	if !errors.Is(err, context.Canceled) || errors.Is(err, oci.ErrUnavailable) || api.in.RegistryId != nil || aws.ToString(api.in.ImageIds[0].ImageDigest) == "" {
		t.Errorf("cancelled: %v, asked for %+v", err, api.in)
	}
}
