package ecrtest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatch"
	cwtypes "github.com/aws/aws-sdk-go-v2/service/cloudwatch/types"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"dray/upstream/ecrtest"
)

// awsConfig configures the unmodified SDK by its environment, as an operator would.
func awsConfig(t *testing.T, s *ecrtest.Running) aws.Config {
	t.Helper()
	for k, v := range map[string]string{
		"AWS_ENDPOINT_URL_ECR": s.APIURL, "AWS_ENDPOINT_URL_CLOUDWATCH": s.APIURL, "AWS_ENDPOINT_URL_STS": s.APIURL, "AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
		"AWS_SECRET_ACCESS_KEY": "secret", "AWS_SESSION_TOKEN": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_ENDPOINT_URL": "", "AWS_CA_BUNDLE": "",
	} {
		t.Setenv(k, v)
	}
	tr := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(tr.CloseIdleConnections)
	cfg, err := config.LoadDefaultConfig(t.Context(), config.WithHTTPClient(&http.Client{Transport: tr}))
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// Source: ECR model, GetAuthorizationToken: base64 of AWS:password, life of 12 hours,
// proxyEndpoint.
func TestSDKAuthorizationToken(t *testing.T) {
	r := start(t, ecrtest.Options{})
	client := ecr.NewFromConfig(awsConfig(t, r.Running))
	out, err := client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		t.Fatal(err)
	}
	data := out.AuthorizationData[0]
	if got := *data.ProxyEndpoint; got != "https://"+ecrName {
		t.Errorf("proxyEndpoint %s", got)
	}
	if left := time.Until(*data.ExpiresAt); left < 12*time.Hour-time.Minute || left > 12*time.Hour {
		t.Errorf("expires in %v", left)
	}
	plain, err := base64.StdEncoding.DecodeString(*data.AuthorizationToken)
	if err != nil || !bytes.HasPrefix(plain, []byte("AWS:")) {
		t.Fatalf("token %s: %v", plain, err)
	}
	r.basic = ""
	r.get("/v2/", "Authorization", "Basic "+*data.AuthorizationToken).want(t, http.StatusOK, "", "")

	// registryIds are deprecated and still work; the token is the same kind.
	//lint:ignore SA1019 that it still works is what is tested
	out, err = client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{RegistryIds: []string{"210987654321"}})
	if err != nil || *out.AuthorizationData[0].ProxyEndpoint != "https://210987654321.dkr.ecr.eu-west-1.amazonaws.com" {
		t.Errorf("%+v, %v", out, err)
	}
	// A token of another region is of no use here.
	out, err = client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{}, func(o *ecr.Options) { o.Region = "us-east-1" })
	if err != nil {
		t.Fatal(err)
	}
	r.get("/v2/", "Authorization", "Basic "+*out.AuthorizationData[0].AuthorizationToken).want(t, http.StatusBadRequest, "DENIED", "Your Authorization Token is invalid.")

	r.SetDenials(ecrtest.Denial{Action: "ecr:GetAuthorizationToken"})
	_, err = client.GetAuthorizationToken(t.Context(), &ecr.GetAuthorizationTokenInput{})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "AccessDeniedException" {
		t.Errorf("denied: %v", err)
	}
	if n := r.Count("GetAuthorizationToken"); n != 4 {
		t.Errorf("%d calls counted", n)
	}
}

// Source: ECR model: fields and errors of the operations on repositories.
func TestSDKRepositories(t *testing.T) {
	s := ecrtest.Start(t, ecrtest.Options{Port: 5443})
	client := ecr.NewFromConfig(awsConfig(t, s))
	ctx := t.Context()
	in := &ecr.CreateRepositoryInput{
		RepositoryName: aws.String("team/app"), Tags: []types.Tag{{Key: aws.String("owner"), Value: aws.String("me")}},
		ImageTagMutability:                 types.ImageTagMutabilityImmutableWithExclusion,
		ImageTagMutabilityExclusionFilters: []types.ImageTagMutabilityExclusionFilter{{FilterType: "WILDCARD", Filter: aws.String("dev*")}},
		ImageScanningConfiguration:         &types.ImageScanningConfiguration{ScanOnPush: true},
		EncryptionConfiguration:            &types.EncryptionConfiguration{EncryptionType: types.EncryptionTypeKms},
	}
	created, err := client.CreateRepository(ctx, in)
	if err != nil {
		t.Fatal(err)
	}
	repo := created.Repository
	if *repo.RepositoryArn != "arn:aws:ecr:eu-west-1:123456789012:repository/team/app" || *repo.RepositoryUri != ecrName+":5443/team/app" || *repo.RegistryId != "123456789012" ||
		repo.ImageTagMutability != in.ImageTagMutability || *repo.ImageTagMutabilityExclusionFilters[0].Filter != "dev*" || !repo.ImageScanningConfiguration.ScanOnPush ||
		repo.EncryptionConfiguration.EncryptionType != types.EncryptionTypeKms || repo.EncryptionConfiguration.KmsKey == nil || time.Since(*repo.CreatedAt).Abs() > time.Minute {
		t.Errorf("%+v", repo)
	}
	_, err = client.CreateRepository(ctx, in)
	if _, ok := errors.AsType[*types.RepositoryAlreadyExistsException](err); !ok {
		t.Errorf("again: %v", err)
	}
	for _, name := range []string{"Team/app", "a", "team//app", strings.Repeat("x", 257), "team/.app"} {
		_, err = client.CreateRepository(ctx, &ecr.CreateRepositoryInput{RepositoryName: &name})
		if _, ok := errors.AsType[*types.InvalidParameterException](err); !ok {
			t.Errorf("%q: %v", name, err)
		}
	}
	s.Advance(time.Second) // until the repository is there
	described, err := client.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"team/app"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*repo, described.Repositories[0], cmpopts.IgnoreUnexported(types.Repository{}, types.ImageScanningConfiguration{},
		types.EncryptionConfiguration{}, types.ImageTagMutabilityExclusionFilter{})); diff != "" {
		t.Error(diff)
	}
	_, err = client.DescribeRepositories(ctx, &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"team/none"}})
	e, ok := errors.AsType[*types.RepositoryNotFoundException](err)
	if !ok || e.ErrorMessage() != "The repository with name 'team/none' does not exist in the registry with id '123456789012'" {
		t.Errorf("missing: %v", err)
	}
	policy := `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}`
	if _, err := client.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: repo.RepositoryName, LifecyclePolicyText: &policy}); err != nil {
		t.Error(err)
	}
	got, err := client.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: repo.RepositoryName})
	if err != nil || *got.LifecyclePolicyText != policy {
		t.Errorf("%v, %v", got, err)
	}
	_, err = client.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: repo.RepositoryName, LifecyclePolicyText: aws.String("{}")})
	if _, ok := errors.AsType[*types.InvalidParameterException](err); !ok {
		t.Errorf("short policy: %v", err)
	}
	_, err = client.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: aws.String("team/none"), LifecyclePolicyText: &policy})
	if _, ok := errors.AsType[*types.RepositoryNotFoundException](err); !ok {
		t.Errorf("policy for nothing: %v", err)
	}
	if _, err := client.DeleteRepository(ctx, &ecr.DeleteRepositoryInput{RepositoryName: repo.RepositoryName}); err != nil {
		t.Error(err)
	}
	_, err = client.GetLifecyclePolicy(ctx, &ecr.GetLifecyclePolicyInput{RepositoryName: repo.RepositoryName})
	if _, ok := errors.AsType[*types.RepositoryNotFoundException](err); !ok {
		t.Errorf("deleted: %v", err)
	}
}

// Source: ECR model, DescribeRepositories: pages of 100, up to 1000.
func TestSDKRepositoryPages(t *testing.T) {
	s := ecrtest.Start(t, ecrtest.Options{})
	client := ecr.NewFromConfig(awsConfig(t, s))
	var want, got []string
	for i := range 205 {
		want = append(want, fmt.Sprintf("team/app-%03d", i))
		s.CreateRepository(want[i])
	}
	pages := 0
	for p := ecr.NewDescribeRepositoriesPaginator(client, &ecr.DescribeRepositoriesInput{}); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Repositories {
			got = append(got, *r.RepositoryName)
		}
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("%d names on %d pages", len(got), pages)
	}
	_, err := client.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{MaxResults: aws.Int32(1001)})
	if _, ok := errors.AsType[*types.InvalidParameterException](err); !ok {
		t.Errorf("1001: %v", err)
	}
}

// Source: ECR model: the operations on images and layers.
func TestSDKImages(t *testing.T) {
	r := start(t, ecrtest.Options{})
	client := ecr.NewFromConfig(awsConfig(t, r.Running))
	ctx := t.Context()
	name := aws.String("team/app")
	layer, raw := r.image(*name, "v1", "layer")
	d := digest.FromBytes(raw).String()
	loose := r.push(*name, []byte("loose")).String()

	layers, err := client.BatchCheckLayerAvailability(ctx, &ecr.BatchCheckLayerAvailabilityInput{RepositoryName: name,
		LayerDigests: []string{layer.String(), digest.FromString("none").String(), "sha256:bad"}})
	if err != nil {
		t.Fatal(err)
	}
	if l := layers.Layers; len(l) != 2 || l[0].LayerAvailability != types.LayerAvailabilityAvailable || *l[0].LayerSize != 5 || *l[0].MediaType != v1.MediaTypeImageLayerGzip ||
		l[1].LayerAvailability != types.LayerAvailabilityUnavailable || len(layers.Failures) != 1 || layers.Failures[0].FailureCode != types.LayerFailureCodeInvalidLayerDigest {
		t.Errorf("%+v", layers)
	}
	link, err := client.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: name, LayerDigest: aws.String(layer.String())})
	if err != nil {
		t.Fatal(err)
	}
	r.get(*link.DownloadUrl).want(t, http.StatusOK, "", "layer")
	_, err = client.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: name, LayerDigest: &loose})
	if _, ok := errors.AsType[*types.LayerInaccessibleException](err); !ok {
		t.Errorf("unreferenced: %v", err)
	}
	_, err = client.GetDownloadUrlForLayer(ctx, &ecr.GetDownloadUrlForLayerInput{RepositoryName: name, LayerDigest: aws.String(digest.FromString("none").String())})
	if _, ok := errors.AsType[*types.LayersNotFoundException](err); !ok {
		t.Errorf("missing layer: %v", err)
	}
	images := func() types.ImageDetail {
		t.Helper()
		out, err := client.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: name, ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("v1")}}})
		if err != nil || len(out.ImageDetails) != 1 {
			t.Fatalf("%+v, %v", out, err)
		}
		return out.ImageDetails[0]
	}
	if got := images(); *got.ImageDigest != d || !slices.Equal(got.ImageTags, []string{"v1"}) || got.LastRecordedPullTime != nil || *got.ImageSizeInBytes != 5 || time.Since(*got.ImagePushedAt).Abs() > time.Minute {
		t.Errorf("%+v", got)
	}
	batch, err := client.BatchGetImage(ctx, &ecr.BatchGetImageInput{RepositoryName: name, ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("v1")}, {ImageTag: aws.String("v2")}, {}}})
	if err != nil || len(batch.Images) != 1 || *batch.Images[0].ImageManifest != string(raw) || len(batch.Failures) != 2 ||
		batch.Failures[0].FailureCode != types.ImageFailureCodeImageNotFound || batch.Failures[1].FailureCode != types.ImageFailureCodeMissingDigestAndTag {
		t.Errorf("%+v, %v", batch, err)
	}
	if got := images(); got.LastRecordedPullTime == nil {
		t.Error("no lastRecordedPullTime after a pull")
	}
	_, err = client.DescribeImages(ctx, &ecr.DescribeImagesInput{RepositoryName: name, ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("v9")}}})
	if _, ok := errors.AsType[*types.ImageNotFoundException](err); !ok {
		t.Errorf("missing image: %v", err)
	}
	put := func(manifest, tag string) error {
		_, err := client.PutImage(ctx, &ecr.PutImageInput{RepositoryName: name, ImageManifest: &manifest, ImageTag: &tag})
		return err
	}
	if err := put(string(raw), "v2"); err != nil {
		t.Error(err)
	}
	if _, ok := errors.AsType[*types.ImageAlreadyExistsException](put(string(raw), "v2")); !ok {
		t.Error("no ImageAlreadyExistsException")
	}
	if _, ok := errors.AsType[*types.LayersNotFoundException](put(strings.ReplaceAll(string(raw), layer.Encoded(), digest.FromString("x").Encoded()), "v3")); !ok {
		t.Error("no LayersNotFoundException")
	}
	list, err := client.ListImages(ctx, &ecr.ListImagesInput{RepositoryName: name})
	if err != nil || len(list.ImageIds) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	gone, err := client.BatchDeleteImage(ctx, &ecr.BatchDeleteImageInput{RepositoryName: name, ImageIds: []types.ImageIdentifier{{ImageTag: aws.String("v1")}, {ImageTag: aws.String("v2")}}})
	if err != nil || len(gone.ImageIds) != 2 || len(r.Images()) != 0 {
		t.Errorf("%+v, %v", gone, err)
	}
}

// Source: ECR guide, blob mounting: PutAccountSetting of BLOB_MOUNTING, off by default.
func TestSDKAccountSetting(t *testing.T) {
	r := start(t, ecrtest.Options{})
	client := ecr.NewFromConfig(awsConfig(t, r.Running))
	d, _ := r.image("team/src", "v1", "layer")
	r.CreateRepository("team/dst")
	mount := "/v2/team/dst/blobs/uploads/?from=team/src&mount=" + d.String()
	for _, tc := range []struct {
		value  string
		status int
	}{{"DISABLED", 202}, {"ENABLED", 201}} {
		got, err := client.GetAccountSetting(t.Context(), &ecr.GetAccountSettingInput{Name: aws.String("BLOB_MOUNTING")})
		if err != nil || *got.Value != "DISABLED" {
			t.Errorf("%v, %v", got, err)
		}
		if _, err := client.PutAccountSetting(t.Context(), &ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: &tc.value}); err != nil {
			t.Fatal(err)
		}
		r.do(http.MethodPost, mount, nil).want(t, tc.status, "", "")
	}
	_, err := client.PutAccountSetting(t.Context(), &ecr.PutAccountSettingInput{Name: aws.String("BLOB_MOUNTING"), Value: aws.String("MAYBE")})
	if _, ok := errors.AsType[*types.ValidationException](err); !ok {
		t.Errorf("%v", err)
	}
}

// Source: AWS signature rules: unsigned and unknown callers are refused; the shape is checked, the
// secret is not known.
func TestAPISignatureShape(t *testing.T) {
	r := start(t, ecrtest.Options{Principals: map[string]string{"AKIDEXAMPLE": "arn:aws:iam::123456789012:role/ci"}})
	call := func(auth string) answer {
		return r.do(http.MethodPost, r.APIURL+"/", strings.NewReader("{}"), "X-Amz-Target", "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories", "Authorization", auth)
	}
	for auth, class := range map[string]string{
		"": "MissingAuthenticationTokenException", "Basic QVdTOng=": "MissingAuthenticationTokenException", signed("s3"): "IncompleteSignatureException",
		strings.Replace(signed("ecr"), "AKIDEXAMPLE", "AKIDOTHER", 1): "UnrecognizedClientException",
	} {
		if a := call(auth); a.Status < 400 || !bytes.Contains(a.Body, []byte(`"__type":"`+class+`"`)) {
			t.Errorf("%q: %d %s", auth, a.Status, a.Body)
		}
	}
	call(signed("ecr")).want(t, http.StatusOK, "", "")
	r.SetDenials(ecrtest.Denial{Principal: "*:role/ci"})
	if a := call(signed("ecr")); !bytes.Contains(a.Body, []byte("User: arn:aws:iam::123456789012:role/ci is not authorized to perform: ecr:DescribeRepositories")) {
		t.Errorf("%s", a.Body)
	}
	if a := r.api("StartImageScan", struct{}{}); a.Status != 400 || !bytes.Contains(a.Body, []byte("UnknownOperationException")) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

// Source: STS API reference: roles of other accounts, their names and life; the token carries the
// role's rights.
func TestSDKAssumeRole(t *testing.T) {
	r := start(t, ecrtest.Options{More: []ecrtest.RegistryID{{Account: "210987654321", Region: "eu-west-1"}}})
	cfg := awsConfig(t, r.Running)
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil)
	if err != nil || *who.Arn != "arn:aws:iam::123456789012:user/dray" || *who.Account != "123456789012" {
		t.Fatalf("%+v, %v", who, err)
	}
	const role = "arn:aws:iam::210987654321:role/team/mirror"
	cfg.Credentials = stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), role, func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "dray" })
	out, err := ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), nil)
	if err != nil || *out.AuthorizationData[0].ProxyEndpoint != "https://210987654321.dkr.ecr.eu-west-1.amazonaws.com" {
		t.Fatalf("%+v, %v", out, err)
	}
	assumed := "arn:aws:sts::210987654321:assumed-role/mirror/dray"
	if who, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), nil); err != nil || *who.Arn != assumed {
		t.Errorf("%+v, %v", who, err)
	}
	r.basic, r.host = "", "210987654321.dkr.ecr.eu-west-1.amazonaws.com"
	list := func() answer {
		return r.get("/v2/a/b/tags/list", "Authorization", "Basic "+*out.AuthorizationData[0].AuthorizationToken)
	}
	list().want(t, http.StatusNotFound, "NAME_UNKNOWN", "The repository with name 'a/b' does not exist in the registry with id '210987654321'")
	r.SetDenials(ecrtest.Denial{Principal: assumed, Action: "ecr:ListImages"})
	list().want(t, http.StatusForbidden, "DENIED", "")

	credentials, err := cfg.Credentials.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) { return credentials, nil })
	r.Advance(2 * time.Hour)
	_, err = ecr.NewFromConfig(cfg).GetAuthorizationToken(t.Context(), nil)
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "ExpiredTokenException" {
		t.Errorf("after its life: %v", err)
	}
	r.SetDenials(ecrtest.Denial{Action: "sts:AssumeRole"})
	_, err = sts.NewFromConfig(awsConfig(t, r.Running)).AssumeRole(t.Context(), &sts.AssumeRoleInput{RoleArn: aws.String(role), RoleSessionName: aws.String("x")})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "AccessDenied" {
		t.Errorf("denied: %v", err)
	}
	web, err := sts.NewFromConfig(awsConfig(t, r.Running)).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String(role),
		RoleSessionName: aws.String("pod"), WebIdentityToken: aws.String("jwt")})
	if err != nil || *web.AssumedRoleUser.Arn != "arn:aws:sts::210987654321:assumed-role/mirror/pod" {
		t.Errorf("%+v, %v", web, err)
	}
	_, err = sts.NewFromConfig(awsConfig(t, r.Running)).AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{RoleArn: aws.String("arn:aws:iam::1:role/x-long-enough"),
		RoleSessionName: aws.String("pod"), WebIdentityToken: aws.String("jwt")})
	if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != "ValidationError" {
		t.Errorf("bad role: %v", err)
	}
}

// Source: requests captured from service/cloudwatch v1.75: CBOR, gzip from 10,240 bytes on.
func TestSDKMetrics(t *testing.T) {
	s := ecrtest.Start(t, ecrtest.Options{})
	client := cloudwatch.NewFromConfig(awsConfig(t, s))
	at := time.Now().Truncate(time.Second)
	datum := cwtypes.MetricDatum{MetricName: aws.String("Pulls"), Timestamp: &at, Unit: cwtypes.StandardUnitCount, Values: []float64{1, 2.5}, Counts: []float64{3, 4},
		Dimensions: []cwtypes.Dimension{{Name: aws.String("Cluster"), Value: aws.String("a")}}, StorageResolution: aws.Int32(60)}
	put := func(ctx context.Context, data ...cwtypes.MetricDatum) error {
		_, err := client.PutMetricData(ctx, &cloudwatch.PutMetricDataInput{Namespace: aws.String("dray"), MetricData: data})
		return err
	}
	if err := put(t.Context(), datum); err != nil {
		t.Fatal(err)
	}
	got := s.Metrics()[0]
	if got.Namespace != "dray" || got.MetricName != "Pulls" || got.Unit != "Count" || !slices.Equal(got.Values, datum.Values) || !slices.Equal(got.Counts, datum.Counts) ||
		!got.Timestamp.Equal(at) || got.Dimensions[0].Value != "a" || *got.StorageResolution != 60 {
		t.Errorf("%+v", got)
	}
	many := slices.Repeat([]cwtypes.MetricDatum{{MetricName: aws.String("Bytes"), Value: aws.Float64(7)}}, 1000)
	if err := put(t.Context(), many...); err != nil {
		t.Fatal(err)
	}
	last := s.Log()[1]
	if last.Request["Content-Encoding"] != "gzip" || last.BytesIn > 10240 || last.Kind != ecrtest.KindMetricPut || len(s.Metrics()) != 1001 {
		t.Errorf("%+v, %d metrics", last, len(s.Metrics()))
	}
}

// Source: CloudWatch model and quotas page: limits and the errors by which they are told.
func TestSDKMetricErrors(t *testing.T) {
	s := ecrtest.Start(t, ecrtest.Options{})
	client := cloudwatch.NewFromConfig(awsConfig(t, s), func(o *cloudwatch.Options) { o.RetryMaxAttempts = 1 })
	good := cwtypes.MetricDatum{MetricName: aws.String("m"), Value: aws.Float64(1)}
	alter := func(f func(*cwtypes.MetricDatum)) []cwtypes.MetricDatum {
		d := good
		f(&d)
		return []cwtypes.MetricDatum{d}
	}
	for name, tc := range map[string]struct {
		data []cwtypes.MetricDatum
		code string
	}{
		"none": {nil, "MissingRequiredParameter"},
		"1001": {slices.Repeat([]cwtypes.MetricDatum{good}, 1001), "InvalidParameterValue"},
		"31 dimensions": {alter(func(d *cwtypes.MetricDatum) {
			d.Dimensions = slices.Repeat([]cwtypes.Dimension{{Name: aws.String("n"), Value: aws.String("v")}}, 31)
		}), "InvalidParameterValue"},
		"blank value": {alter(func(d *cwtypes.MetricDatum) {
			d.Dimensions = []cwtypes.Dimension{{Name: aws.String("n"), Value: aws.String(" ")}}
		}), "InvalidParameterValue"},
		"not ASCII": {alter(func(d *cwtypes.MetricDatum) {
			d.Dimensions = []cwtypes.Dimension{{Name: aws.String("n"), Value: aws.String("é")}}
		}), "InvalidParameterValue"},
		"151 values":     {alter(func(d *cwtypes.MetricDatum) { d.Value, d.Values = nil, make([]float64, 151) }), "InvalidParameterValue"},
		"counts differ":  {alter(func(d *cwtypes.MetricDatum) { d.Value, d.Values, d.Counts = nil, []float64{1, 2}, []float64{1} }), "InvalidParameterValue"},
		"too large":      {alter(func(d *cwtypes.MetricDatum) { d.Value = aws.Float64(1e300) }), "InvalidParameterValue"},
		"three weeks":    {alter(func(d *cwtypes.MetricDatum) { d.Timestamp = aws.Time(time.Now().Add(-21 * 24 * time.Hour)) }), "InvalidParameterValue"},
		"three hours on": {alter(func(d *cwtypes.MetricDatum) { d.Timestamp = aws.Time(time.Now().Add(3 * time.Hour)) }), "InvalidParameterValue"},
		"resolution":     {alter(func(d *cwtypes.MetricDatum) { d.StorageResolution = aws.Int32(30) }), "InvalidParameterValue"},
		"long name":      {alter(func(d *cwtypes.MetricDatum) { d.MetricName = aws.String(strings.Repeat("n", 256)) }), "InvalidParameterValue"},
		"two of a kind":  {alter(func(d *cwtypes.MetricDatum) { d.Values = []float64{1} }), "InvalidParameterCombination"},
		"throttled":      {[]cwtypes.MetricDatum{good}, "Throttling"},
	} {
		if name == "throttled" {
			s.SetQuotas(map[string]ecrtest.Quota{"PutMetricData": {}})
		}
		_, err := client.PutMetricData(t.Context(), &cloudwatch.PutMetricDataInput{Namespace: aws.String("dray"), MetricData: tc.data})
		if e, ok := errors.AsType[smithy.APIError](err); !ok || e.ErrorCode() != tc.code {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
		s.SetQuotas(nil)
	}
	if len(s.Metrics()) != 0 {
		t.Errorf("%d metrics kept", len(s.Metrics()))
	}
}
