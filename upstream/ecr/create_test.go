package ecr

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"dray/upstream"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

type createAPI struct {
	in        *ecr.CreateRepositoryInput
	err       error
	policy    *ecr.PutLifecyclePolicyInput
	policyErr error
	unseen    int // calls that do not find the repository yet
}

func (a *createAPI) PutLifecyclePolicy(_ context.Context, in *ecr.PutLifecyclePolicyInput, _ ...func(*ecr.Options)) (*ecr.PutLifecyclePolicyOutput, error) {
	a.policy = in
	if a.unseen > 0 {
		a.unseen--
		return nil, &types.RepositoryNotFoundException{}
	}
	return &ecr.PutLifecyclePolicyOutput{}, a.policyErr
}

func (a *createAPI) SetRepositoryPolicy(context.Context, *ecr.SetRepositoryPolicyInput, ...func(*ecr.Options)) (*ecr.SetRepositoryPolicyOutput, error) {
	return &ecr.SetRepositoryPolicyOutput{}, nil
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
				ImmutableTags: true, ExceptTags: []string{"latest", "dev-*"}, ScanOnPush: true,
				Encryption: "KMS_DSSE", KMSKey: "alias/x", Tags: map[string]string{"team": "a", "by": "dray"},
			},
			ecr.CreateRepositoryInput{
				ImageTagMutability: types.ImageTagMutabilityImmutableWithExclusion,
				ImageTagMutabilityExclusionFilters: []types.ImageTagMutabilityExclusionFilter{
					{Filter: aws.String("latest"), FilterType: "WILDCARD"}, {Filter: aws.String("dev-*"), FilterType: "WILDCARD"},
				},
				ImageScanningConfiguration: &types.ImageScanningConfiguration{ScanOnPush: true},
				EncryptionConfiguration:    &types.EncryptionConfiguration{EncryptionType: "KMS_DSSE", KmsKey: aws.String("alias/x")},
				Tags:                       []types.Tag{{Key: aws.String("by"), Value: aws.String("dray")}, {Key: aws.String("team"), Value: aws.String("a")}},
			},
		},
		"mutable but for": {Template{ExceptTags: []string{"v*"}}, ecr.CreateRepositoryInput{
			ImageTagMutability:                 types.ImageTagMutabilityMutableWithExclusion,
			ImageTagMutabilityExclusionFilters: []types.ImageTagMutabilityExclusionFilter{{Filter: aws.String("v*"), FilterType: "WILDCARD"}},
		}},
		"immutable": {Template{ImmutableTags: true, Encryption: "KMS"}, ecr.CreateRepositoryInput{
			ImageTagMutability:      types.ImageTagMutabilityImmutable,
			EncryptionConfiguration: &types.EncryptionConfiguration{EncryptionType: "KMS"},
		}},
	} {
		api := &createAPI{}
		if err := NewCreator(CreatorOptions{API: api, Account: "123456789012", Template: c.template}).Create(t.Context(), "a/b"); err != nil {
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
		"failing":     {answered(500, &types.ServerException{Message: aws.String("oops")}), oci.ErrUnavailable},
		"credentials": {&smithy.GenericAPIError{Code: "ExpiredTokenException"}, upstream.ErrCredentials},
		"unreachable": {errors.New("dial tcp: refused"), oci.ErrUnavailable},
	} {
		err := NewCreator(CreatorOptions{API: &createAPI{err: c.err}, Account: "", Template: Template{}}).Create(t.Context(), "a/b")
		if c.want == nil && err != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if _, ok := errors.AsType[*oci.Error](err); err != nil && !ok {
			t.Errorf("%s: %v is not fit for the wire", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := NewCreator(CreatorOptions{API: &createAPI{err: ctx.Err()}, Account: "", Template: Template{}}).Create(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// answered returns the error of the SDK for an answer with a status.
func answered(status int, err error) error {
	return &smithyhttp.ResponseError{Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}}, Err: err}
}

// bare answers every request with a status, and a body that is not of AWS.
type bare struct {
	status int
	body   string
}

func (b bare) Do(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: b.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(b.body)), Request: r}, nil
}

// TestBareStatus: a 5xx is a failure, not a refusal, although it has no error of AWS, or one that
// is not known.
func TestBareStatus(t *testing.T) {
	for _, body := range []string{"", "{}", `{"message":"no backend"}`, `{"__type":"InternalServerException"}`, "<html>"} {
		for status, want := range map[int]error{500: oci.ErrUnavailable, 502: oci.ErrUnavailable, 503: oci.ErrUnavailable, 504: oci.ErrUnavailable, 403: oci.ErrDenied} {
			if status == 403 && body == "<html>" {
				continue // the SDK cannot read it, so that nobody knows who answers
			}
			api := ecr.New(ecr.Options{
				Region: "eu-west-1", HTTPClient: bare{status, body}, Retryer: aws.NopRetryer{},
				Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", ""),
			})
			if err := NewCreator(CreatorOptions{API: api}).Create(t.Context(), "a/b"); !errors.Is(err, want) {
				t.Errorf("create, %d %q: %v, want %v", status, body, err, want)
			}
			if err := NewDeleter(api, "").DeleteManifest(t.Context(), upstream.Repo{Name: "a/b"}, oci.Reference{Tag: "v1"}); !errors.Is(err, want) {
				t.Errorf("delete, %d %q: %v, want %v", status, body, err, want)
			}
			_, err := api.GetAuthorizationToken(t.Context(), nil)
			if err = (&TokenOptions{Region: "eu-west-1"}).noToken(err); strings.Contains(err.Error(), "refuses the credentials") != (status == 403) {
				t.Errorf("token, %d %q: %v", status, body, err)
			}
		}
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

const policy = `{"rules":[{"rulePriority":1,"description":"keep the newest images only","selection":{"tagStatus":"any","countType":"imageCountMoreThan","countNumber":50},"action":{"type":"expire"}}]}`

// TestSDKLifecycle has ECR keep the policy of a repository that was created, and of no other.
func TestSDKLifecycle(t *testing.T) {
	run := ecrtest.Start(t, ecrtest.Options{})
	run.CreateRepository("old/repo")
	cfg := aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", "")}
	r, err := NewSession(cfg, nil).Open(RegistryOptions{Name: "e", Host: run.HostName(), Endpoint: run.APIURL, Template: Template{LifecyclePolicy: policy, ExceptTags: []string{"v*"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, repo := range []string{"new/repo", "old/repo"} {
		if err := r.Creator.Create(t.Context(), repo); err != nil {
			t.Fatal(err)
		}
	}
	cfg.Region = "eu-west-1"
	api := ecr.NewFromConfig(cfg, func(o *ecr.Options) { o.BaseEndpoint = &run.APIURL })
	got, err := api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: aws.String("new/repo")})
	if err != nil || *got.LifecyclePolicyText != policy {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: aws.String("old/repo")}); err == nil {
		t.Error("a repository of somebody else's got the policy")
	}
	run.SetDenials(ecrtest.Denial{Action: "ecr:PutLifecyclePolicy"})
	if err := r.Creator.Create(t.Context(), "third/repo"); err != nil {
		t.Errorf("the push does not go on without the policy: %v", err)
	}
	for result, want := range map[string]float64{"created": 1, "existed": 1, "incomplete": 1} {
		if n := testutil.ToFloat64(r.Creator.outcomes.WithLabelValues(result)); n != want {
			t.Errorf("%v repositories %s, want %v", n, result, want)
		}
	}
}

// The policy waits, too, until the API finds the new repository, but not for ever.
func TestLifecycleOfAnUnseenRepository(t *testing.T) {
	for unseen, result := range map[int]string{3: "created", 100: "incomplete"} {
		synctest.Test(t, func(t *testing.T) {
			c := NewCreator(CreatorOptions{API: &createAPI{unseen: unseen}, Template: Template{LifecyclePolicy: policy}})
			began := time.Now()
			if err := c.Create(t.Context(), "a/b"); err != nil {
				t.Fatal(err)
			}
			if n := testutil.ToFloat64(c.outcomes.WithLabelValues(result)); n != 1 || time.Since(began) > 10*time.Second {
				t.Errorf("%v repositories %s after %v", n, result, time.Since(began))
			}
		})
	}
}

func TestTemplateRefuses(t *testing.T) {
	names := []*regexp.Regexp{regexp.MustCompile(`team/[a-z]+|y`), regexp.MustCompile(`x`), regexp.MustCompile(`\Qz.`)}
	for repo, want := range map[string]string{
		"team/app": "", "x": "", "team/app/sub": `match team/[a-z]+|y or x or \Qz.`, "z.": "", "xx": "repository xx does not exist",
	} {
		api := &createAPI{}
		err := NewCreator(CreatorOptions{API: api, Template: Template{Names: names}}).Create(t.Context(), repo)
		if (err == nil) != (want == "") || (api.in != nil) != (want == "") || err != nil && (!errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", repo, err)
		}
	}
	api := &createAPI{}
	err := NewCreator(CreatorOptions{API: api, Template: Template{DryRun: true, ImmutableTags: true, ExceptTags: []string{"dev-*"}, Encryption: "KMS", RepositoryPolicy: "{}", LifecyclePolicy: policy, Tags: map[string]string{"a": "b"}}}).Create(t.Context(), "r")
	for _, part := range []string{"dry_run", "immutable_with_exclusion (dev-*)", "KMS with the key of AWS", "a lifecycle policy", "a repository policy", "a=b"} {
		if !errors.Is(err, oci.ErrDenied) || !strings.Contains(err.Error(), part) || api.in != nil {
			t.Errorf("dry run: %v lacks %q", err, part)
		}
	}
}

func TestCheckTemplate(t *testing.T) {
	rule := func(more string) []byte {
		return []byte(`{"rules":[` + more + `]}` + strings.Repeat(" ", 100))
	}
	good := `{"rulePriority":1,"selection":{"tagStatus":"any"},"action":{"type":"expire"}}`
	for text, want := range map[string]string{
		policy: "", "{}": "has 2 characters", strings.Repeat("x", 200): "is not the JSON", string(rule("")): "has 0 rules",
		string(rule(good + "," + good)):                                  "rules[1] without a rulePriority of its own",
		string(rule(`{"rulePriority":1,"action":{"type":"expire"}}`)):    "rules[0] without a selection",
		string(rule(`{"rulePriority":1,"selection":{}}`)):                "rules[0] without an action",
		string(rule(strings.Repeat(good+",", 50) + good)):                "has 51 rules",
		`{"rules":[` + good + `]` + strings.Repeat(" ", maxPolicy) + `}`: "characters",
	} {
		if err := CheckLifecyclePolicy([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
	for _, good := range [][]string{nil, {"latest"}, {"v*", "*-dev-*", "a.b_c-d", "3", "4"}} {
		if err := CheckExceptTags(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range [][]string{{"a", "b", "c", "d", "e", "f"}, {""}, {"a b"}, {"***"}, {"ä"}} {
		if CheckExceptTags(bad) == nil {
			t.Errorf("%q went through", bad)
		}
	}
}

func TestCheckRepositoryPolicy(t *testing.T) {
	const allow = `{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":"ecr:BatchGetImage"}`
	for text, want := range map[string]string{
		`{"Version":"2012-10-17","Statement":[` + allow + `]}`:                   "",
		`{"Statement":` + allow + `}`:                                            "",
		`{"Statement":[{"Effect":"Deny","NotPrincipal":"*","NotAction":["a"]}]}`: "",
		`[]`: "is not the JSON", `{}`: "has no Statement", `{"Statement":[]}`: "has no Statement", `{"Statement":"x"}`: "has no Statement",
		`{"Statement":[` + allow + `,{"Effect":"Allow","Action":"*"}]}`: "Statement[1] without", `{"Statement":{"Effect":"allow","Principal":"*","Action":"*"}}`: "Statement[0]",
		`{"Statement":` + allow + `}` + strings.Repeat(" ", 10_240): "characters",
	} {
		if err := CheckRepositoryPolicy([]byte(text)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.60q: %v, want %q", text, err, want)
		}
	}
}

// TestSDKRepositoryPolicy has ECR keep the policy of a repository that was created.
func TestSDKRepositoryPolicy(t *testing.T) {
	run := ecrtest.Start(t, ecrtest.Options{})
	cfg := aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", "")}
	const text = `{"Statement":{"Effect":"Allow","Principal":"*","Action":"ecr:BatchGetImage"}}`
	r, err := NewSession(cfg, nil).Open(RegistryOptions{Name: "e", Host: run.HostName(), Endpoint: run.APIURL, Template: Template{RepositoryPolicy: text}})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Creator.Create(t.Context(), "new/repo"); err != nil {
		t.Fatal(err)
	}
	cfg.Region = "eu-west-1"
	api := ecr.NewFromConfig(cfg, func(o *ecr.Options) { o.BaseEndpoint = &run.APIURL })
	got, err := api.GetRepositoryPolicy(t.Context(), &ecr.GetRepositoryPolicyInput{RepositoryName: aws.String("new/repo")})
	if err != nil || *got.PolicyText != text {
		t.Errorf("%+v, %v", got, err)
	}
	run.SetDenials(ecrtest.Denial{Action: "ecr:SetRepositoryPolicy"})
	if err := r.Creator.Create(t.Context(), "other/repo"); err != nil {
		t.Errorf("the push does not go on without the policy: %v", err)
	}
	for result, want := range map[string]float64{"created": 1, "incomplete": 1} {
		if n := testutil.ToFloat64(r.Creator.outcomes.WithLabelValues(result)); n != want {
			t.Errorf("%v repositories %s, want %v", n, result, want)
		}
	}
}

func TestOpenRefusesOtherNames(t *testing.T) {
	for _, host := range []string{"docker.io", "public.ecr.aws.example.com", ""} {
		if _, err := NewSession(aws.Config{}, nil).Open(RegistryOptions{Host: host}); err == nil {
			t.Errorf("Open(%q) went through", host)
		}
	}
}
