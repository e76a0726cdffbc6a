package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/opencontainers/go-digest"

	"dray/upstream/ecrtest"
)

// creating makes a stack with a section create_repositories.
func creating(t *testing.T, o ecrtest.Options, section string) *stack {
	t.Helper()
	return startBefore(t, ecrtest.Start(t, o), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
		"push: true", "push: true\n  create_repositories: {"+section+"}")
}

// pushTo pushes an image as far as its manifest, and returns the answer to that.
func (s *stack) pushTo(repo string) got {
	s.Helper()
	layer := layerOf(1, 1000)
	s.upload(repo, layer)
	s.upload(repo, imageConfig)
	m := imageOf(s, layer)
	return s.do("PUT", "/v2/"+repo+"/manifests/v1", m.Raw, "Content-Type", m.MediaType)
}

// A name that no pattern allows is refused with a text that reaches the terminal, and nothing is
// created.
func TestCreateOnlyAllowedNames(t *testing.T) {
	s := creating(t, ecrtest.Options{}, `names: ["team/[a-z]+", "sandbox-.*"]`)
	s.ecr.CreateRepository("legacy/app")
	for repo, allowed := range map[string]bool{"team/app": true, "sandbox-me/x": true, "legacy/app": true, "team/app/sub": false, "others/app": false} {
		r := s.pushTo(repo)
		if allowed {
			if r.StatusCode != 201 {
				t.Errorf("%s: %s %s", repo, r.Status, r.body)
			}
			continue
		}
		if msg := s.checkError(r, "PUT", 403, "DENIED"); !strings.Contains(msg, repo) || !strings.Contains(msg, "match team/[a-z]+ or sandbox-.*") {
			t.Errorf("%s: the message is %q", repo, msg)
		}
	}
	if n := s.ecr.Count("CreateRepository"); n != 2 {
		t.Errorf("%d repositories created, want 2", n)
	}
	if n := s.metric("dray_repositories_created_total"); n < 4 { // two created, and each refusal
		t.Errorf("%v counted", n)
	}
}

// A dry run says what would be created and asks AWS for nothing.
func TestCreateDryRun(t *testing.T) {
	s := creating(t, ecrtest.Options{}, `mode: dry_run, tag_mutability: IMMUTABLE, tag_mutability_except: [latest], scan_on_push: true`)
	msg := s.checkError(s.pushTo("brand/new"), "PUT", 403, "DENIED")
	for _, part := range []string{"brand/new", "dry_run", "immutable_with_exclusion (latest)", "scan on push"} {
		if !strings.Contains(msg, part) {
			t.Errorf("the message %q lacks %q", msg, part)
		}
	}
	if n := s.ecr.Count("CreateRepository"); n != 0 {
		t.Errorf("%d repositories created", n)
	}
}

// A new repository has everything that the template says. Tags that are excepted move, the others
// do not.
func TestCreateFromTemplate(t *testing.T) {
	policy := filepath.Join(t.TempDir(), "lifecycle.json")
	text := `{"rules":[{"rulePriority":1,"selection":{"tagStatus":"untagged","countType":"sinceImagePushed","countUnit":"days","countNumber":14},"action":{"type":"expire"}}]}`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := creating(t, ecrtest.Options{}, "tag_mutability: IMMUTABLE, tag_mutability_except: [latest, dev-*], lifecycle_policy: "+policy+", tags: {owner: ci}")
	if r := s.pushTo("brand/new"); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	api := ecr.NewFromConfig(aws.Config{Region: "eu-west-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", "")},
		func(o *ecr.Options) { o.BaseEndpoint = &s.ecr.APIURL })
	got, err := api.GetLifecyclePolicy(t.Context(), &ecr.GetLifecyclePolicyInput{RepositoryName: aws.String("brand/new")})
	if err != nil || aws.ToString(got.LifecyclePolicyText) != text {
		t.Errorf("%+v, %v", got, err)
	}
	other := imageOf(t, layerOf(2, 500))
	s.upload("brand/new", layerOf(2, 500))
	for tag, want := range map[string]int{"v1": 400, "latest": 201, "dev-1": 201} {
		if want == 201 {
			s.want(201, "PUT", "/v2/brand/new/manifests/"+tag, imageOf(t, layerOf(1, 1000)).Raw, "Content-Type", other.MediaType)
		}
		if r := s.do("PUT", "/v2/brand/new/manifests/"+tag, other.Raw, "Content-Type", other.MediaType); r.StatusCode != want {
			t.Errorf("moving %s: %s %s", tag, r.Status, r.body)
		}
	}
}

// A registry whose own templates create repositories on push finds none missing: dray asks for
// none, whatever its mode.
func TestCreateLeftToTheRegistry(t *testing.T) {
	for _, mode := range []string{"create", "dry_run", "off"} {
		t.Run(mode, func(t *testing.T) {
			s := creating(t, ecrtest.Options{CreateOnPush: []ecrtest.CreationTemplate{{Prefix: "team"}}}, "mode: "+mode)
			if r := s.pushTo("team/new"); r.StatusCode != 201 {
				t.Fatalf("%s %s", r.Status, r.body)
			}
			spent(t, s.ecr, kinds{"GetAuthorizationToken": 1, "upload-start": 2, "upload-patch": 2, "upload-put": 2, "manifest-put": 1})
			if r := s.pushTo("others/new"); (r.StatusCode == 201) != (mode == "create") { // no template of the registry's has the prefix
				t.Errorf("%s %s", r.Status, r.body)
			}
		})
	}
}

// With checks, only an image that passes creates its repository: a rejected one leaves nothing at
// the registry, whether its layers were sent, mounted or held back.
func TestCreateAfterTheVerdict(t *testing.T) {
	for name, test := range map[string]struct {
		options          ecrtest.Options
		checks, upstream string
	}{
		"layers sent early":  {},
		"layers held":        {checks: "  forward: hold\n"},
		"layers mounted":     {options: ecrtest.Options{BlobMounting: true}},
		"acknowledged first": {upstream: "  acknowledge: local\n"},
	} {
		t.Run(name, func(t *testing.T) {
			edits := append(checked("  runtime: {mode: enforce, non_root: true}\n"+test.checks), "  push: true\n", "  push: true\n"+test.upstream)
			s := startBefore(t, ecrtest.Start(t, test.options), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), edits...)
			layer := gzipOf(t, tarOf(t, "a", "b"))
			root := newImage(t, plainConfig, layer)
			user := newImage(t, strings.Replace(plainConfig, `"rootfs"`, `"config":{"User":"1000"},"rootfs"`, 1), layer)
			pushDirectly(t, s.ecr, "old/app", "v1", layer)
			s.want(202, "POST", "/v2/team/new/blobs/uploads/?from=old/app&mount="+digest.FromBytes(layer).String(), nil)
			for range 2 {
				s.message(s.pushImage("team/new", "v1", root))
			}
			<-s.ecr.Idle()
			if n := s.ecr.Count("CreateRepository"); n != 0 {
				t.Errorf("rejected pushes created %d repositories", n)
			}
			if r := s.pushImage("team/new", "v2", user); r.StatusCode != 201 {
				t.Fatalf("the image that passes: %s %s", r.Status, r.body)
			}
			s.eventually("the image that passes is at ECR", func() bool { _, ok := s.ecr.Image("team/new", "v2"); return ok })
			if n := s.ecr.Count("CreateRepository"); n != 1 {
				t.Errorf("%d repositories created, want 1", n)
			}
		})
	}
}

// A new repository has the policy by which other accounts may pull, and the encryption that was
// asked for.
func TestCreateForOtherAccounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.json")
	const text = `{"Statement":[{"Effect":"Allow","Principal":{"AWS":"210987654321"},"Action":["ecr:BatchGetImage","ecr:GetDownloadUrlForLayer"]}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := creating(t, ecrtest.Options{}, "encryption: KMS_DSSE, repository_policy: "+path)
	if r := s.pushTo("brand/new"); r.StatusCode != 201 {
		t.Fatalf("%s %s", r.Status, r.body)
	}
	api := ecr.NewFromConfig(aws.Config{Region: "eu-west-1", Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", "")},
		func(o *ecr.Options) { o.BaseEndpoint = &s.ecr.APIURL })
	got, err := api.GetRepositoryPolicy(t.Context(), &ecr.GetRepositoryPolicyInput{RepositoryName: aws.String("brand/new")})
	if err != nil || aws.ToString(got.PolicyText) != text {
		t.Errorf("%+v, %v", got, err)
	}
	made, err := api.DescribeRepositories(t.Context(), &ecr.DescribeRepositoriesInput{RepositoryNames: []string{"brand/new"}})
	if err != nil || made.Repositories[0].EncryptionConfiguration.EncryptionType != "KMS_DSSE" {
		t.Errorf("%+v, %v", made, err)
	}
}

// Registries in two accounts and regions, each with the address of its own API: the role of the
// second one is assumed with its external id.
func TestTwoRegistriesWithAPIsOfTheirOwn(t *testing.T) {
	const role = "arn:aws:iam::210987654321:role/ci"
	other := ecrtest.Start(t, ecrtest.Options{Account: "210987654321", Region: "us-west-2", ExternalIDs: map[string]string{role: "of-the-team"}})
	t.Setenv("AWS_ENDPOINT_URL_STS", other.APIURL)
	upstreams := func(id string) string {
		return "upstreams:\n- {name: west, url: \"http://" + other.RegistryHost + "\", address: \"" + other.RegistryAddr + "\", prefixes: [west], push: true, role_arn: \"" + role + "\", external_id: " + id + ", api_url: \"" + other.APIURL + "\"}\n- name: ecr"
	}
	for id, want := range map[string]int{"of-the-team": 201, "of-others": 403} {
		s := startBefore(t, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(),
			"upstreams:\n- name: ecr", upstreams(id), "upstreams: [ecr, hub]", "upstreams: [ecr, west, hub]")
		if r := s.pushTo("aws/team/app"); r.StatusCode != 201 {
			t.Errorf("the first registry: %s %s", r.Status, r.body)
		}
		if r := s.pushTo("west/team/app"); r.StatusCode != want {
			t.Errorf("the second registry with the external id %s: %s %s", id, r.Status, r.body)
		}
		if n := s.ecr.Count("GetAuthorizationToken"); n != 1 {
			t.Errorf("%d tokens of the first API", n)
		}
	}
	if n := other.Count("GetAuthorizationToken"); n != 1 {
		t.Errorf("%d tokens of the second API", n)
	}
}
