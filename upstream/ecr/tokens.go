package ecr

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/auth"
)

const (
	// callTimeout bounds one GetAuthorizationToken, including the SDK's own attempts.
	callTimeout = 20 * time.Second
	// minSuspectAge is the least age at which a refusal makes a token due for renewal.
	minSuspectAge = 30 * time.Second
	// The wait after a failed call starts at firstWait and doubles with each further failure, up to
	// lastWait. dray shortens each wait at random, by up to half.
	firstWait = time.Second
	lastWait  = time.Minute
)

// TokenAPI has the call of the ECR API that Tokens needs.
type TokenAPI interface {
	GetAuthorizationToken(context.Context, *ecr.GetAuthorizationTokenInput, ...func(*ecr.Options)) (*ecr.GetAuthorizationTokenOutput, error)
}

// TokenOptions configure Tokens.
type TokenOptions struct {
	// API is the client of one principal in one region. Required.
	API TokenAPI
	// Region and Role name the principal in metrics and logs. An empty role is the identity of the
	// process.
	Region, Role string
	// Via is "fips", an address, or empty. In metrics, it distinguishes principals that differ only in
	// how they reach AWS.
	Via string
	// Challenged makes dray send the credential only after the registry has asked for it. ECR Public
	// needs this, because its registry does not accept the credential as Basic authentication. Its
	// challenge names a token endpoint, at which dray exchanges the credential for a token, as clients
	// do after docker login (ECR Public guide, registry-auth).
	Challenged bool
	// Logger receives failed renewals. Nil discards.
	Logger *slog.Logger
}

// Tokens caches the authorization token of one principal in one region. The token is valid for
// every registry that the principal may use in the region (ECR user guide, "Private registry
// authentication").
type Tokens struct {
	o      TokenOptions
	calls  *prometheus.CounterVec
	expiry prometheus.GaugeFunc

	mu       sync.Mutex // guards the fields below; never held during a call
	held     auth.Credential
	renew    time.Time // when the held token is due for renewal
	suspect  bool      // a registry has refused the held token at or after minSuspectAge
	flight   *flight
	failures int
	lastErr  error
	retry    time.Time // time of the next call, after a failure
}

// flight is one call; err is set before done closes.
type flight struct {
	done chan struct{}
	err  error
}

// Health is the state of a principal's token.
type Health struct {
	Region, Role string
	// Healthy says that there is a valid token.
	Healthy bool
	// Issued and Expires bound the life of the token; zero if there is no token.
	Issued, Expires time.Time
	// LastError is the newest failure since the last success.
	LastError error
	// Failures is the number of failures since the last success.
	Failures int
}

// NewTokens returns Tokens without a token.
func NewTokens(o TokenOptions) *Tokens {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
	t := &Tokens{o: o}
	labels := prometheus.Labels{"region": o.Region, "role": o.Role, "via": o.Via}
	t.calls = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "dray_ecr_token_calls_total", ConstLabels: labels,
		Help: "Calls of GetAuthorizationToken, by result: ok or error.",
	}, []string{"result"})
	t.expiry = prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "dray_ecr_token_expiry_timestamp_seconds", ConstLabels: labels,
		Help: "Unix time at which the current ECR token expires; 0 if there is none.",
	}, func() float64 {
		if h := t.Health(); !h.Expires.IsZero() {
			return float64(h.Expires.Unix())
		}
		return 0
	})
	return t
}

// Collectors returns the metrics of the token.
func (t *Tokens) Collectors() []prometheus.Collector {
	return []prometheus.Collector{t.calls, t.expiry}
}

// Health returns the state of the token.
func (t *Tokens) Health() Health {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Health{
		Region: t.o.Region, Role: t.o.Role, Healthy: t.valid(time.Now()), Issued: t.held.Issued, Expires: t.held.Expires,
		LastError: t.lastErr, Failures: t.failures,
	}
}

// valid reports whether the held token has not expired; the caller has locked t.mu.
func (t *Tokens) valid(now time.Time) bool { return now.Before(t.held.Expires) }

// Credential implements the function type auth.Credentials. It returns the token as a name and a
// password. The result is Preemptive unless Challenged is set. The token comes from memory. If it
// has expired or is due for renewal, one caller renews it by a call to AWS. During a renewal, other
// callers get the old token, unless it has expired or a registry has refused it. In these cases
// they wait for the new token. If the renewal fails, all callers get the old token until it
// expires, and after that the error of the call. After a failed call, Credential does not call AWS
// again during a pause, which grows with the failures.
func (t *Tokens) Credential(ctx context.Context, _ string) (auth.Credential, error) {
	now := time.Now()
	t.mu.Lock()
	held, valid := t.held, t.valid(now)
	switch {
	case valid && now.Before(t.renew) && !t.suspect,
		valid && t.flight != nil && !t.suspect,
		valid && now.Before(t.retry):
		t.mu.Unlock()
		return held, nil
	case now.Before(t.retry):
		err := t.lastErr
		t.mu.Unlock()
		return auth.Credential{}, err
	}
	f, leader := t.flight, t.flight == nil
	if leader {
		f = &flight{done: make(chan struct{})}
		t.flight = f
	}
	t.mu.Unlock()
	if leader {
		t.lead(ctx, f)
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return auth.Credential{}, context.Cause(ctx)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.valid(time.Now()) {
		return auth.Credential{}, cmp.Or(f.err, errors.New("ECR token expired"))
	}
	return t.held, nil
}

// lead makes the call of a flight. The call is not cancelled with the caller's request, because
// other callers wait for the token.
func (t *Tokens) lead(ctx context.Context, f *flight) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	var cred auth.Credential
	err := errors.New("the call to AWS ended without a result") // err keeps this value if t.call panics
	defer func() { t.land(ctx, f, cred, err) }()
	cred, err = t.call(ctx)
}

// land records the result of a flight.
func (t *Tokens) land(ctx context.Context, f *flight, cred auth.Credential, err error) {
	result := "ok"
	if err != nil {
		result = "error"
		t.o.Logger.WarnContext(ctx, "cannot renew ECR token", "region", t.o.Region, "role", t.o.Role, "error", err)
	}
	t.calls.WithLabelValues(result).Inc()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flight, f.err = nil, err
	if err != nil {
		wait := min(firstWait<<min(t.failures, 10), lastWait)
		t.failures++
		t.lastErr, t.retry = err, time.Now().Add(wait/2+rand.N(wait/2))
	} else {
		t.held, t.suspect, t.failures, t.lastErr, t.retry = cred, false, 0, nil, time.Time{}
		t.renew = cred.Issued.Add(cred.Expires.Sub(cred.Issued) / 2)
	}
	close(f.done)
}

// call gets a token from AWS. Its errors contain nothing of the token.
func (t *Tokens) call(ctx context.Context) (auth.Credential, error) {
	issued := time.Now()
	out, err := t.o.API.GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return auth.Credential{}, t.o.noToken(err)
	}
	bad := func(why string) (auth.Credential, error) {
		return auth.Credential{}, fmt.Errorf("ECR token for %s: %s", t.o.Region, why)
	}
	if len(out.AuthorizationData) == 0 || out.AuthorizationData[0].AuthorizationToken == nil || out.AuthorizationData[0].ExpiresAt == nil {
		return bad("the answer has no token")
	}
	data := out.AuthorizationData[0]
	plain, err := base64.StdEncoding.DecodeString(*data.AuthorizationToken)
	user, password, ok := strings.Cut(string(plain), ":")
	if err != nil || !ok {
		return bad("the token is not a name and a password")
	}
	if !data.ExpiresAt.After(issued) {
		return bad("the token has already expired by the clock of this machine")
	}
	return auth.Credential{
		Username: user, Password: auth.Secret(password), Preemptive: !t.o.Challenged, Issued: issued, Expires: *data.ExpiresAt,
		Invalidate: func() { t.invalidate(auth.Secret(password)) },
	}, nil
}

// invalidate takes note that a registry has refused the given password. If the held token has this
// password and is old enough (minSuspectAge), the next caller of Credential renews the token. If
// the renewal fails, the token stays in use, because the registry may have refused it for another
// reason.
func (t *Tokens) invalidate(password auth.Secret) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held.Password == password && time.Since(t.held.Issued) >= minSuspectAge {
		t.suspect = true
	}
}

// Run renews the token at half of its life, again and again until ctx ends, so that requests rarely
// wait for AWS. It returns nil.
func (t *Tokens) Run(ctx context.Context) error {
	for {
		_, _ = t.Credential(ctx, "") // a failure shows in Health, and the call is repeated
		timer := time.NewTimer(t.untilRenewal())
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// untilRenewal returns the time until the next renewal, or until the next attempt after a failed
// renewal.
func (t *Tokens) untilRenewal() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.renew
	if t.retry.After(next) {
		next = t.retry
	}
	return max(time.Until(next), firstWait/2)
}
