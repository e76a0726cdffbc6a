package ecr

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"dray/upstream/auth"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tokenAPI gives the passwords p1, p2 … with a life of twelve hours.
type tokenAPI struct {
	mu    sync.Mutex
	calls int
	err   error
	life  time.Duration
	raw   *ecr.GetAuthorizationTokenOutput
}

func (a *tokenAPI) GetAuthorizationToken(ctx context.Context, _ *ecr.GetAuthorizationTokenInput, _ ...func(*ecr.Options)) (*ecr.GetAuthorizationTokenOutput, error) {
	time.Sleep(time.Second)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls++
	if a.err != nil || a.raw != nil {
		return a.raw, a.err
	}
	token := base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "AWS:p%d", a.calls))
	return &ecr.GetAuthorizationTokenOutput{AuthorizationData: []types.AuthorizationData{{
		AuthorizationToken: &token, ExpiresAt: aws.Time(time.Now().Add(a.life)),
	}}}, nil
}

func (a *tokenAPI) set(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

func (a *tokenAPI) expect(t *testing.T, calls int) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls != calls {
		t.Fatalf("%d calls of GetAuthorizationToken, want %d", a.calls, calls)
	}
}

func newTokens() (*tokenAPI, *Tokens) {
	api := &tokenAPI{life: 12 * time.Hour}
	return api, NewTokens(TokenOptions{API: api, Region: "eu-west-1"})
}

func show(t *testing.T, tokens *Tokens, want auth.Secret) auth.Credential {
	t.Helper()
	c, err := tokens.Credential(t.Context(), "")
	if err != nil || c.Password != want || c.Username != "AWS" || !c.Preemptive {
		t.Errorf("credential %s %s, %v; want AWS %s", c.Username, c.Password.Reveal(), err, want.Reveal())
	}
	return c
}

func TestOneCallForACrowd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, tokens := newTokens()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() { show(t, tokens, "p1") })
		}
		wg.Wait()
		api.expect(t, 1)
		time.Sleep(6*time.Hour - 2*time.Second)
		show(t, tokens, "p1")
		api.expect(t, 1)

		// At half of its life one caller renews; the others do not wait for it.
		time.Sleep(2 * time.Second)
		wg.Go(func() { show(t, tokens, "p2") })
		synctest.Wait()
		began := time.Now()
		show(t, tokens, "p1")
		if d := time.Since(began); d != 0 {
			t.Errorf("a caller waited %v although a valid token was held", d)
		}
		wg.Wait()
		api.expect(t, 2)
	})
}

func TestOldTokenServesWhileRenewalFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, tokens := newTokens()
		show(t, tokens, "p1")
		time.Sleep(7 * time.Hour)
		down := errors.New("sts is down")
		api.set(down)
		began := time.Now()
		for time.Since(began) < 10*time.Minute { // a request every 100 ms
			show(t, tokens, "p1")
			time.Sleep(100 * time.Millisecond)
		}
		if api.calls < 5 || api.calls > 30 {
			t.Errorf("%d calls in ten minutes of failing, want them about a minute apart", api.calls)
		}
		if h := tokens.Health(); !h.Healthy || !errors.Is(h.LastError, down) || h.Failures != api.calls-1 {
			t.Errorf("health while the old token serves: %+v", h)
		}

		time.Sleep(6 * time.Hour) // now it has expired
		if _, err := tokens.Credential(t.Context(), ""); !errors.Is(err, down) {
			t.Errorf("with an expired token: %v, want the cause", err)
		}
		if h := tokens.Health(); h.Healthy {
			t.Error("an expired token is healthy")
		}
		before := api.calls
		for range 1000 {
			if _, err := tokens.Credential(t.Context(), ""); !errors.Is(err, down) {
				t.Fatalf("within the pause: %v, want the cause", err)
			}
		}
		api.expect(t, before)

		api.set(nil)
		time.Sleep(time.Minute)
		c, err := tokens.Credential(t.Context(), "")
		if h := tokens.Health(); err != nil || !h.Healthy || h.LastError != nil || !h.Expires.Equal(c.Expires) {
			t.Errorf("after recovery: %v, %+v", err, h)
		}
	})
}

func TestInvalidate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, tokens := newTokens()
		first := show(t, tokens, "p1")
		first.Invalidate() // refused as soon as issued: another would be refused as well
		show(t, tokens, "p1")
		time.Sleep(time.Hour)
		api.set(errors.New("down"))
		first.Invalidate()
		show(t, tokens, "p1") // there is no newer one
		api.expect(t, 2)
		api.set(nil)
		time.Sleep(2 * time.Second)
		second := show(t, tokens, "p3")
		api.expect(t, 3)
		time.Sleep(time.Hour)
		first.Invalidate() // an old one, of no interest any more
		show(t, tokens, "p3")
		second.Invalidate()
		second.Invalidate()
		show(t, tokens, "p4")
		api.expect(t, 4)
	})
}

func TestLeaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, tokens := newTokens()
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = tokens.Credential(ctx, "") })
		synctest.Wait()
		wg.Go(func() { show(t, tokens, "p1") })
		cancel()
		wg.Wait()
		api.expect(t, 1)
	})
}

func TestFollowerLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, tokens := newTokens()
		var wg sync.WaitGroup
		wg.Go(func() { show(t, tokens, "p1") })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := tokens.Credential(ctx, ""); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a follower whose time is up got %v", err)
		}
		wg.Wait()
	})
}

func TestRunKeepsTheTokenFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, tokens := newTokens()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- tokens.Run(ctx) }()
		for range 48 {
			time.Sleep(time.Hour)
			began := time.Now()
			if _, err := tokens.Credential(t.Context(), ""); err != nil || time.Since(began) != 0 {
				t.Fatalf("a request waited %v for a token, %v", time.Since(began), err)
			}
		}
		api.expect(t, 8) // at the start, and every six hours and a second
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestOddTokens(t *testing.T) {
	good := base64.StdEncoding.EncodeToString([]byte("AWS:s3cret"))
	for name, data := range map[string][]types.AuthorizationData{
		"none":        nil,
		"empty":       {{}},
		"no expiry":   {{AuthorizationToken: &good}},
		"no base64":   {{AuthorizationToken: aws.String("s3cret!"), ExpiresAt: aws.Time(time.Now().Add(time.Hour))}},
		"no colon":    {{AuthorizationToken: aws.String("czNjcmV0"), ExpiresAt: aws.Time(time.Now().Add(time.Hour))}},
		"in the past": {{AuthorizationToken: &good, ExpiresAt: aws.Time(time.Now().Add(-time.Hour))}},
	} {
		synctest.Test(t, func(t *testing.T) {
			if name == "in the past" { // the clock of a bubble begins in 2000
				data[0].ExpiresAt = aws.Time(time.Now().Add(-time.Hour))
			}
			api := &tokenAPI{raw: &ecr.GetAuthorizationTokenOutput{AuthorizationData: data}}
			_, err := NewTokens(TokenOptions{API: api, Region: "eu-west-1"}).Credential(t.Context(), "")
			if err == nil || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%s: %v, want an error without the secret", name, err)
			}
		})
	}
}

func TestExpired(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		method string
		status int
		body   string
		age    time.Duration
		want   bool
	}{
		"expired":           {"GET", 403, `{"errors":[{"code":"DENIED","message":"Your authorization token has expired. Reauthenticate and try again."}]}`, 0, true},
		"invalid":           {"GET", 403, `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`, 0, true},
		"public":            {"GET", 400, `Your authorization token has expired. Reauthenticate and try again.`, 0, true},
		"policy":            {"GET", 403, `User: arn:aws:iam::1:user/x is not authorized to perform: ecr:BatchGetImage`, 11 * time.Hour, false},
		"head with an old":  {"HEAD", 403, "", time.Hour, true},
		"head with a young": {"HEAD", 403, "", time.Minute, false},
		"invalid, as 400":   {"GET", 400, `{"errors":[{"code":"DENIED","message":"Your Authorization Token is invalid."}]}`, 0, true},
		"bad request":       {"GET", 400, `{"errors":[{"code":"MANIFEST_INVALID","message":"no"}]}`, time.Hour, false},
		"head bad request":  {"HEAD", 400, "", time.Minute, true},
		"head unauthorised": {"HEAD", 401, "", time.Hour, false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), c.method, "https://x/v2/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r := auth.Refusal{Request: req, Status: c.status, Body: []byte(c.body), Credential: auth.Credential{Issued: now.Add(-c.age)}}
		if got := Expired(r); got != c.want {
			t.Errorf("%s: Expired = %v", name, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := NewSession(aws.Config{}, nil)
	for _, o := range []RegistryOptions{
		{Host: "123456789012.dkr.ecr.eu-west-1.amazonaws.com"},
		{Host: "210987654321.dkr.ecr.eu-west-1.amazonaws.com"}, // the same principal and region: the same token
		{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com"},
		{Host: "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com"},
		{Host: "123456789012.dkr-ecr.us-east-1.on.aws"},
		{Host: "123456789012.dkr.ecr.us-east-1.amazonaws.com", RoleARN: "arn:aws:iam::123456789012:role/push"},
	} {
		if _, err := s.Open(o); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.Tokens()); n != 5 {
		t.Errorf("%d tokens for 5 principals", n)
	}
	for _, c := range s.Collectors() {
		reg.MustRegister(c)
	}
	if _, err := reg.Gather(); err != nil {
		t.Error(err)
	}
}

// faulty is an API whose calls panic.
type faulty struct{ TokenAPI }

// TestPanicOfACall has a call to AWS panic. Later callers get an error.
func TestPanicOfACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := NewTokens(TokenOptions{API: faulty{}, Region: "eu-west-1"})
		func() {
			defer func() { _ = recover() }()
			_, _ = tokens.Credential(t.Context(), "")
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := tokens.Credential(ctx, ""); err == nil || ctx.Err() != nil {
			t.Errorf("%v, %v", err, ctx.Err())
		}
	})
}
