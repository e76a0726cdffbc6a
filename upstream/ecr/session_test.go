package ecr

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
)

// asked is an HTTP client that nothing answers. It records the hosts to which requests would go.
type asked struct {
	mu    sync.Mutex
	hosts []string
}

func (a *asked) Do(r *http.Request) (*http.Response, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hosts = append(a.hosts, r.URL.Host)
	return nil, errors.New("nobody answers")
}

// The token of a principal that is opened while the session runs is renewed, as long as it is
// retained.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wire := &asked{}
		count := func() int {
			wire.mu.Lock()
			defer wire.mu.Unlock()
			return len(wire.hosts)
		}
		s := NewSession(aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", ""), HTTPClient: wire,
			Retryer: func() aws.Retryer { return aws.NopRetryer{} }}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		synctest.Wait()
		open := func() *Tokens {
			r, err := s.Open(RegistryOptions{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com"})
			if err != nil {
				t.Fatal(err)
			}
			return r.Tokens
		}
		tokens := open()
		synctest.Wait()
		if n := count(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if gone := s.Retain([]*Tokens{nil, tokens}); len(gone) > 0 || open() != tokens {
			t.Error("a used token is gone")
		}
		if gone := s.Retain(nil); len(gone) != 1 || gone[0] != tokens || len(s.Tokens()) > 0 {
			t.Errorf("gone %v, left %v", gone, s.Tokens())
		}
		synctest.Wait()
		before := count()
		time.Sleep(24 * time.Hour)
		if n := count(); n != before {
			t.Errorf("asked %d times more", n-before)
		}
		if open() == tokens {
			t.Error("the token has come back")
		}
		cancel()
		if err := <-done; err != nil || len(s.Tokens()) != 1 {
			t.Errorf("%v, %d tokens", err, len(s.Tokens()))
		}
	})
}

// STS is called by the same kind of address as the registry, so that dray does not leave FIPS or
// IPv6 for a role. Source: IAM user guide, reference_dual-stack_endpoint_support.
func TestRoleIsAssumedByTheKindOfTheRegistry(t *testing.T) {
	for registry, want := range map[string][2]string{
		"123456789012.dkr.ecr.us-east-1.amazonaws.com":          {"sts.us-east-1.amazonaws.com", "api.ecr.us-east-1.amazonaws.com"},
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":     {"sts-fips.us-east-1.amazonaws.com", "api.ecr-fips.us-east-1.amazonaws.com"},
		"123456789012.dkr-ecr.us-east-1.on.aws":                 {"sts.us-east-1.api.aws", "ecr.us-east-1.api.aws"},
		"123456789012.dkr-ecr-fips.us-east-1.on.aws":            {"sts-fips.us-east-1.api.aws", "ecr-fips.us-east-1.api.aws"},
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":      {"sts.cn-north-1.amazonaws.com.cn", "api.ecr.cn-north-1.amazonaws.com.cn"},
		"123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com": {"sts.us-gov-west-1.amazonaws.com", "api.ecr-fips.us-gov-west-1.amazonaws.com"},
	} {
		for i, role := range []string{"arn:aws:iam::123456789012:role/dray", ""} {
			wire := &asked{}
			s := NewSession(aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", ""), HTTPClient: wire,
				Retryer: func() aws.Retryer { return aws.NopRetryer{} }}, nil)
			r, err := s.Open(RegistryOptions{Host: registry, RoleARN: role})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Tokens.Credential(t.Context(), ""); err == nil {
				t.Fatal("there is a token")
			}
			if !slices.Equal(wire.hosts, []string{want[i]}) {
				t.Errorf("%s with role %q: asked %v, want %s", registry, role, wire.hosts, want[i])
			}
		}
	}
	// An address of the operator's overrides all kinds.
	wire := &asked{}
	s := NewSession(aws.Config{Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "s", ""), HTTPClient: wire, BaseEndpoint: aws.String("https://aws.example.com"),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} }}, nil)
	r, err := s.Open(RegistryOptions{Host: "123456789012.dkr-ecr-fips.us-east-1.on.aws", RoleARN: "arn:aws:iam::123456789012:role/dray"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Tokens.Credential(t.Context(), ""); err == nil || !slices.Equal(wire.hosts, []string{"aws.example.com"}) {
		t.Errorf("asked %v, %v", wire.hosts, err)
	}
}
