// Package registries makes the clients of registries from the configuration.
package registries

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/prometheus/client_golang/prometheus"

	"dray/cache"
	"dray/cmd/dray/config"
	"dray/cmd/dray/program"
	"dray/cmd/dray/watched"
	"dray/mirror/admin"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/auth"
	"dray/upstream/ecr"
)

// Registry is one upstream, with the parts of its client that dray needs when it starts or stops,
// for health checks, and for metrics.
type Registry struct {
	*repository.Upstream
	Client     *upstream.Client
	From       config.Upstream // the settings of the upstream
	Gone       atomic.Bool     // whether a reload has removed or replaced the registry
	Breaker    *upstream.Breaker
	Limiter    *upstream.Limiter
	Tokens     *ecr.Tokens // nil unless the credentials come from AWS
	Transport  *watched.Transport
	Hello      func(context.Context) error // sends GET /v2/
	Collectors []prometheus.Collector
	// Quotas asks AWS for the quotas of a private registry; see [ecr.Registry.Quotas]. It is nil for
	// other registries.
	Quotas func(ctx context.Context, endpoint string) (map[string]float64, error)
}

// userAgent returns the User-Agent of dray's requests to registries.
func userAgent() string { return "dray/" + program.Version() }

// Connect makes the client of one registry and wraps it. It sends no request. From the network up,
// the layers are the transport (which adds credentials), the client and the breaker. Above the
// breaker, one layer retries reads, and another creates repositories that are missing at a write.
// awsSession returns the session with AWS. Connect calls it only if the credentials come from AWS.
func Connect(u config.Upstream, awsSession func() (*ecr.Session, error), log *slog.Logger) (*Registry, error) {
	r, err := open(u, awsSession, log)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	return r, nil
}

// open does the work of Connect. Its errors do not name the upstream.
func open(u config.Upstream, awsSession func() (*ecr.Session, error), log *slog.Logger) (*Registry, error) {
	base, err := url.Parse(u.URL)
	if err != nil {
		return nil, err
	}
	r, quirks := &Registry{From: u}, QuirksOf(u)
	as, err := r.access(u, awsSession, watched.Watching(log))
	if err != nil {
		return nil, err
	}
	if r.Transport, err = buildTransport(u, base, log); err != nil {
		return nil, err
	}
	if r.Limiter, err = buildLimiter(u, quirks); err != nil {
		return nil, err
	}
	client, err := upstream.New(upstream.Options{
		Name: u.Name, Base: base, Quirks: quirks, Limiter: r.Limiter, UserAgent: userAgent(), Logger: log,
		Transport: auth.New(auth.Options{Base: r.Transport, Origin: base, Credentials: as.credentials, Expired: as.expired, UserAgent: userAgent()}),
	})
	if err != nil {
		return nil, err
	}
	r.Client, r.Hello = client, client.Hello
	r.assemble(u, client, as.creator, log)
	if u.Delete {
		if as.deleter == nil {
			as.deleter = client
		}
		r.Deleter = r.Breaker.Deleter(as.deleter)
	}
	return r, nil
}

// access has dray's credentials at a registry, and the registry's own API to create repositories
// and delete images. Each field may be nil.
type access struct {
	credentials auth.Credentials
	expired     func(auth.Refusal) bool
	creator     upstream.Creator
	deleter     upstream.Deleter
}

func (r *Registry) access(u config.Upstream, aws func() (*ecr.Session, error), files watched.Source) (access, error) {
	var as access
	if u.Kind == config.KindECR || u.Kind == config.KindECRPublic {
		as.expired = ecr.Expired
	}
	if !u.UsesAWS() {
		if u.Credentials.Username == "" {
			return as, nil
		}
		password, err := files.Secret(u.Credentials.PasswordFile, u.Credentials.Password)
		if err != nil {
			return access{}, fmt.Errorf("password_file: %w", err)
		}
		as.credentials = func(context.Context, string) (auth.Credential, error) {
			return auth.Credential{Username: u.Credentials.Username, Password: password()}, nil
		}
		return as, nil
	}
	session, err := aws()
	if err != nil {
		return access{}, err
	}
	made, err := template(u.CreateRepositories)
	if err != nil {
		return access{}, err
	}
	account, err := session.Open(ecr.RegistryOptions{Name: u.Name, Host: u.RegistryHost(), RoleARN: u.RoleARN, ExternalID: u.ExternalID, Endpoint: u.APIURL, Template: made})
	if err != nil {
		return access{}, err
	}
	r.Tokens = account.Tokens
	as.credentials = account.Tokens.Credential
	if u.Kind == config.KindECR {
		as.deleter, r.Quotas = account.Deleter, account.Quotas
	}
	if u.CreateRepositories.Mode.Creates() {
		as.creator = account.Creator
		r.Collectors = append(r.Collectors, account.Creator.Collectors()...)
	}
	return as, nil
}

func (r *Registry) assemble(u config.Upstream, client *upstream.Client, creator upstream.Creator, log *slog.Logger) {
	r.Breaker = upstream.NewBreaker(upstream.BreakerOptions{Name: u.Name, Lasting: 3 * time.Second, Hello: client.Hello})
	retrying := upstream.NewRetry(r.Breaker.Source(client), upstream.RetryOptions{Name: u.Name, Logger: log})
	r.Upstream = &repository.Upstream{
		Name: u.Name, Registry: u.RegistryHost(), Public: u.PublicName(), RepositoryPrefix: u.RepositoryPrefix,
		Source: retrying, Once: r.Breaker.Held(client), Yielding: r.Breaker.Yielding(client), Lister: r.Breaker.Lister(client),
		Tags: repository.TagPolicy{Fresh: u.Tags.Fresh.Std(), Revalidate: u.Tags.Revalidate.Std(), Stale: u.Tags.Stale.Std(), NotFound: u.Tags.NotFound.Std()},
		Split: cache.Split{
			Threshold: int64(u.ParallelFill.Threshold), Piece: int64(u.ParallelFill.Piece), Streams: u.ParallelFill.Streams,
			Slots: cache.NewSlots(u.ParallelFill.Connections),
		},
	}
	r.AcknowledgeLocally = u.Acknowledge == config.AcknowledgeLocal
	if u.Push {
		r.Sink = r.Breaker.Sink(client)
		if creator != nil {
			r.Sink = upstream.NewCreating(r.Sink, creator)
		}
	}
	r.Collectors = append(r.Collectors, client.Collectors()...)
	r.Collectors = append(r.Collectors, r.Limiter.Collectors()...)
	r.Collectors = append(r.Collectors, r.Breaker.Collectors()...)
	r.Collectors = append(r.Collectors, retrying.Collectors()...)
}

// QuirksOf returns the quirks of an upstream's registry.
func QuirksOf(u config.Upstream) upstream.Quirks {
	switch u.Kind {
	case config.KindECR:
		return ecr.Private()
	case config.KindECRPublic:
		return ecr.Public(u.UsesAWS())
	}
	return upstream.Quirks{}
}

func buildLimiter(u config.Upstream, quirks upstream.Quirks) (*upstream.Limiter, error) {
	rates, err := quirks.RatesWith(u.Limits.Rates)
	if err != nil {
		return nil, err
	}
	return upstream.NewLimiter(upstream.LimiterOptions{
		Name: u.Name, Rates: rates, Slots: u.Limits.Concurrency, Queue: u.Limits.Queue, Wait: u.Limits.Wait.Std(), Reserve: u.Limits.QuotaReserve,
	}), nil
}

// template makes the template of new repositories from a valid configuration.
func template(c config.CreateRepositories) (ecr.Template, error) {
	t := ecr.Template{
		DryRun: c.Mode == config.CreateDryRun, ImmutableTags: c.TagMutability == "IMMUTABLE", ExceptTags: c.TagMutabilityExcept, ScanOnPush: c.ScanOnPush,
		Encryption: types.EncryptionType(c.Encryption), KMSKey: c.KMSKey, Tags: c.Tags,
	}
	for _, name := range c.Names {
		re, err := regexp.Compile(name)
		if err != nil {
			return t, fmt.Errorf("create_repositories: %w", err)
		}
		t.Names = append(t.Names, re)
	}
	for path, into := range map[string]*string{c.LifecyclePolicy: &t.LifecyclePolicy, c.RepositoryPolicy: &t.RepositoryPolicy} {
		if path == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Clean(path))
		if err != nil {
			return t, fmt.Errorf("create_repositories: %w", err)
		}
		*into = string(text)
	}
	return t, nil
}

// buildTransport makes the transport of an upstream. If ca_file is set, the transport also trusts
// the authorities in it. If address is set, the transport dials it in place of the registry's host.
// After a redirect to another host, the transport dials that other host.
func buildTransport(u config.Upstream, base *url.URL, log *slog.Logger) (*watched.Transport, error) {
	o := upstream.TransportOptions{InsecureSkipVerify: u.TLS.InsecureSkipVerify, Reach: &upstream.Reach{
		Registry: upstream.HostPort(base), Address: u.Address, Private: u.PrivateRedirects || u.Kind == config.KindECR,
	}}
	return watched.NewTransport(o, u.TLS.CAFile, log)
}

// Healthy returns an error if the last request to the registry failed, or if dray could not get a
// valid token for the registry. It returns [admin.ErrUnknown] if dray has sent no request yet.
// Healthy itself sends no request. The program sends the first request when it starts.
func (r *Registry) Healthy(context.Context) error {
	s := r.Breaker.State()
	if s.Failures > 0 {
		return fmt.Errorf("%d failures in a row, the last: %w", s.Failures, s.Last)
	}
	if r.Tokens != nil {
		// dray fetches no token before its first request. Until then, a missing token is no error.
		if h := r.Tokens.Health(); !h.Healthy && h.LastError != nil {
			return fmt.Errorf("no valid token: %w", h.LastError)
		}
	}
	if !s.Asked {
		return admin.ErrUnknown
	}
	return s.Problem
}
