package ecr

import (
	"context"
	"errors"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"dray/upstream"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

type createAPI struct {
	in  *ecr.CreateRepositoryInput
	err error
}

func (a *createAPI) CreateRepository(_ context.Context, in *ecr.CreateRepositoryInput, _ ...func(*ecr.Options)) (*ecr.CreateRepositoryOutput, error) {
	a.in = in
	return &ecr.CreateRepositoryOutput{}, a.err
}

func TestTemplate(t *testing.T) {
	for name, c := range map[string]struct {
		template Template
		want     ecr.CreateRepositoryInput
	}{
		"defaults": {Template{}, ecr.CreateRepositoryInput{}},
		"everything": {
			Template{
				ImmutableTags: true, MutableTagFilters: []string{"latest", "dev-*"}, ScanOnPush: true,
				KMS: true, KMSKey: "alias/x", Tags: map[string]string{"team": "a", "by": "dray"},
			},
			ecr.CreateRepositoryInput{
				ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion,
				ImageTagMutabilityExclusionFilters: []types.ImageTagMutabilityExclusionFilter{
					{Filter: aws.String("latest"), FilterType: "WILDCARD"}, {Filter: aws.String("dev-*"), FilterType: "WILDCARD"},
				},
				ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: true},
				EncryptionConfiguration:    &types.EncryptionConfiguration{EncryptionType: "KMS", KmsKey: aws.String("alias/x")},
				Tags:                       []types.Tag{{Key: aws.String("by"), Value: aws.String("dray")}, {Key: aws.String("team"), Value: aws.String("a")}},
			},
		},
		"immutable": {Template{ImmutableTags: true, KMS: true}, ecr.CreateRepositoryInput{
			ImageTagMutability:      types.ImageTagMutabilityImmutable,
			EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: "KMS"},
		}},
	} {
		api := &createAPI{}
		if err := NewCreator(api, "123456789012", c.template).Create(t.Context(), "a/b"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		c.want.RepositoryName, c.want.RegistryId = aws.String("a/b"), aws.String("123456789012")
		unexported := cmpopts.IgnoreUnexported(ecr.CreateRepositoryInput{}, types.ImageTagMutabilityExclusionFilter{},
			types.ImageScanningConfiguration{}, types.EncryptionConfiguration{}, types.Tag{})
		if diff := cmp.Diff(&c.want, api.in, unexported); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCreateErrors(t *testing.T) {
	for name, c := range map[string]struct {
		err  error
		want error
	}{
		"exists":      {&types.RepositoryAlreadyExistsException{}, nil},
		"denied":      {&smithy.GenericAPIError{Code: "AccessDeniedException", Message: "User is not authorized"}, oci.ErrDenied},
		"quota":       {&types.LimitExceededException{Message: aws.String("limit")}, oci.ErrDenied},
		"name":        {&types.InvalidParameterException{Message: aws.String("bad name")}, oci.ErrNameInvalid},
		"throttled":   {&smithy.GenericAPIError{Code: "ThrottlingException", Message: "Rate exceeded"}, oci.ErrTooManyRequests},
		"failing":     {&types.ServerException{Message: aws.String("oops")}, oci.ErrUnavailable},
		"credentials": {&smithy.GenericAPIError{Code: "ExpiredTokenException"}, upstream.ErrCredentials},
		"unreachable": {errors.New("dial tcp: refused"), oci.ErrUnavailable},
	} {
		err := NewCreator(&createAPI{err: c.err}, "", Template{}).Create(t.Context(), "a/b")
		if c.want == nil && err != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, ok := errors.AsType[*oci.Error](err); err != nil && !ok {
			t.Errorf("%s: %v is not fit for the wire", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewCreator(&createAPI{err: ctx.Err()}, "", Template{}).Create(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSDK has the real SDK talk to the fake ECR.
func TestSDK(t *testing.T) {
	run := ecrtest.Start(t, ecrtest.Options{})
	s := NewSession(aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", "")}, nil)
	r, err := s.Open(RegistryOptions{Host: run.HostName(), Endpoint: run.APIURL, Template: Template{ImmutableTags: true}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Tokens.Credential(t.Context(), "")
	if err != nil || c.Username != "AWS" || c.Password == "" || c.Anonymous() {
		t.Fatalf("credential: %+v, %v", c, err)
	}
	for range 2 {
		if err := r.Creator.Create(t.Context(), "new/repo"); err != nil {
			t.Fatal(err)
		}
	}
	run.SetDenials(ecrtest.Denial{Action: "ecr:CreateRepository"})
	if err := r.Creator.Create(t.Context(), "other"); !errors.Is(err, oci.ErrDenied) {
		t.Errorf("denied by IAM: %v", err)
	}
}

func TestOpenRefusesOtherNames(t *testing.T) {
	for _, host := range []string{"docker.io", "public.ecr.aws", ""} {
		if _, err := NewSession(aws.Config{}, nil).Open(RegistryOptions{Host: host}); err == nil {
			t.Errorf("Open(%q) went through", host)
		}
	}
}
