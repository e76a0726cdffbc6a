package ecrtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dray/upstream/ecrtest"
)

const credentialHelper = "github.com/awslabs/amazon-ecr-credential-helper/ecr-login/cli/docker-credential-ecr-login@v0.12.0"

// helperBinary returns the published credential helper, installed once per machine.
func helperBinary(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "dray-test-bin", "ecr-login-v0.12.0")
	path := filepath.Join(dir, "docker-credential-ecr-login")
	if _, err := os.Stat(path); err == nil {
		return path
	}
	if testing.Short() {
		t.Skip("SKIPPED: the credential helper is not installed yet, and -short does not install it")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	fresh, err := os.MkdirTemp(dir, "install-") // several test runs may install at once
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(fresh)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", credentialHelper)
	cmd.Dir = t.TempDir() // outside of this module
	cmd.Env = append(os.Environ(), "GOBIN="+fresh, "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: THE PUBLISHED CREDENTIAL HELPER IS NOT TESTED, for it cannot be installed: %v\n%s", err, out)
	}
	if err := os.Rename(filepath.Join(fresh, filepath.Base(path)), path); err != nil {
		t.Fatal(err)
	}
	return path
}

// The published amazon-ecr-credential-helper gets a token that the registry takes. It refuses a
// proxyEndpoint that is not ECR-shaped, and accepts a port there.
func TestCredentialHelper(t *testing.T) {
	bin := helperBinary(t)
	s := ecrtest.Start(t, ecrtest.Options{Port: 5443})
	ask := func(server string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), bin, "get")
		cmd.Stdin = strings.NewReader(server)
		cmd.Env = []string{"HOME=" + t.TempDir(), "AWS_ENDPOINT_URL_ECR=" + s.APIURL, "AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=secret",
			"AWS_ECR_DISABLE_CACHE=true", "AWS_EC2_METADATA_DISABLED=true"}
		return cmd.Output()
	}
	if s.HostName() != ecrName+":5443" {
		t.Errorf("host name %s", s.HostName())
	}
	out, err := ask(s.HostName())
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var credentials struct{ Username, Secret string }
	if err := json.NewDecoder(bytes.NewReader(out)).Decode(&credentials); err != nil {
		t.Fatal(err)
	}
	r := &rig{Running: s, t: t, basic: credentials.Secret, http: plainClient(t, s)}
	if credentials.Username != "AWS" {
		t.Errorf("user %q", credentials.Username)
	}
	r.get("/v2/").want(t, 200, "", "")
	if n := s.Count("GetAuthorizationToken"); n != 1 {
		t.Errorf("%d token calls", n)
	}
	if out, err := ask("registry.example.com"); err == nil {
		t.Errorf("answered for a name that is not ECR-shaped: %s", out)
	}
}
