package main

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
	"dray/mirror/pull"
	"dray/mirror/repository"
	"dray/upstream"
	"dray/upstream/auth"
	"dray/upstream/ecr"
)

// registry is one upstream, with those parts of its client that dray needs when it starts and
// stops, for health checks, and for metrics.
type registry struct {
	*repository.Upstream
	client     *upstream.Client
	from       config.Upstream
	gone       atomic.Bool // a reload has removed or replaced it
	breaker    *upstream.Breaker
	limiter    *upstream.Limiter
	tokens     *ecr.Tokens // nil unless the credentials come from AWS
	transport  *watched.Transport
	hello      func(context.Context) error
	collectors []prometheus.Collector
}

// userAgent returns the User-Agent of dray's requests to registries.
func userAgent() string { return "dray/" + program.Version() }

// buildUpstream makes the client of one registry and wraps it. From the network up, the layers are
// the transport with the credentials, the client, and the breaker. Above the breaker, reads are
// retried, and writes create missing repositories. aws returns the session with AWS; it is called
// only if the credentials come from AWS.
func buildUpstream(u config.Upstream, aws func() (*ecr.Session, error), log *slog.Logger) (*registry, error) {
	r, err := connect(u, aws, log)
	if err != nil {
		return nil, fmt.Errorf("upstream %s: %w", u.Name, err)
	}
	return r, nil
}

// connect does the work of buildUpstream. Its errors do not name the upstream.
func connect(u config.Upstream, aws func() (*ecr.Session, error), log *slog.Logger) (*registry, error) {
	base, err := url.Parse(u.URL)
	if err != nil {
		return nil, err
	}
	r, quirks := &registry{from: u}, quirksOf(u)
	as, err := r.access(u, aws, watched.Watching(log))
	if err != nil {
		return nil, err
	}
	if r.transport, err = buildTransport(u, base, log); err != nil {
		return nil, err
	}
	if r.limiter, err = buildLimiter(u, quirks); err != nil {
		return nil, err
	}
	client, err := upstream.New(upstream.Options{
		Name: u.Name, Base: base, Quirks: quirks, Limiter: r.limiter, UserAgent: userAgent(), Logger: log,
		Transport: auth.New(auth.Options{Base: r.transport, Origin: base, Credentials: as.credentials, Expired: as.expired, UserAgent: userAgent()}),
	})
	if err != nil {
		return nil, err
	}
	r.client, r.hello = client, client.Hello
	r.assemble(u, client, as.creator, log)
	if u.Delete {
		if as.deleter == nil {
			as.deleter = client
		}
		r.Deleter = r.breaker.Deleter(as.deleter)
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

func (r *registry) access(u config.Upstream, aws func() (*ecr.Session, error), files watched.Source) (access, error) {
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
	r.tokens = account.Tokens
	as.credentials = account.Tokens.Credential
	if u.Kind == config.KindECR {
		as.deleter = account.Deleter
	}
	if u.CreateRepositories.Mode.Creates() {
		as.creator = account.Creator
		r.collectors = append(r.collectors, account.Creator.Collectors()...)
	}
	return as, nil
}

func (r *registry) assemble(u config.Upstream, client *upstream.Client, creator upstream.Creator, log *slog.Logger) {
	r.breaker = upstream.NewBreaker(upstream.BreakerOptions{Name: u.Name, Lasting: 3 * time.Second, Hello: client.Hello})
	retrying := upstream.NewRetry(r.breaker.Source(client), upstream.RetryOptions{Name: u.Name, Logger: log})
	r.Upstream = &repository.Upstream{
		Name: u.Name, Registry: u.RegistryHost(), Public: u.PublicName(), RepositoryPrefix: u.RepositoryPrefix,
		Source: retrying, Once: r.breaker.Held(client), Yielding: r.breaker.Yielding(client), Lister: r.breaker.Lister(client),
		Tags: repository.TagPolicy{Fresh: u.Tags.Fresh.Std(), Revalidate: u.Tags.Revalidate.Std(), Stale: u.Tags.Stale.Std(), NotFound: u.Tags.NotFound.Std()},
		Split: cache.Split{
			Threshold: int64(u.ParallelFill.Threshold), Piece: int64(u.ParallelFill.Piece), Streams: u.ParallelFill.Streams,
			Slots: cache.NewSlots(u.ParallelFill.Connections),
		},
	}
	r.AcknowledgeLocally = u.Acknowledge == config.AcknowledgeLocal
	if u.Push {
		r.Sink = r.breaker.Sink(client)
		if creator != nil {
			r.Sink = upstream.NewCreating(r.Sink, creator)
		}
	}
	r.collectors = append(r.collectors, client.Collectors()...)
	r.collectors = append(r.collectors, r.limiter.Collectors()...)
	r.collectors = append(r.collectors, r.breaker.Collectors()...)
	r.collectors = append(r.collectors, retrying.Collectors()...)
}

// ofRegistry returns the settings of an upstream without those that its registry does not use, and
// without the content of a file that is read again by itself.
func ofRegistry(u config.Upstream) config.Upstream {
	u.Prefixes, u.DefaultNamespace, u.Repositories, u.Prefetch, u.KeepAlive, u.Checks = nil, "", config.Repositories{}, config.Prefetch{}, 0, nil
	if u.Credentials.PasswordFile != "" {
		u.Credentials.Password = ""
	}
	return u
}

// prefetchOf returns the settings of prefetching by the name of the upstream.
func prefetchOf(cfg config.Config) map[string]pull.Prefetch {
	ahead := map[string]pull.Prefetch{}
	for _, u := range cfg.Upstreams {
		if u.Prefetch.Enabled && u.Kind != config.KindLocal {
			ahead[u.Name] = pull.Prefetch{MaxLayer: int64(u.Prefetch.MaxLayer), AtOnce: u.Prefetch.Streams}
		}
	}
	return ahead
}

// keepAliveOf returns the interval of keep-alive requests by the name of the upstream.
func keepAliveOf(cfg config.Config) map[string]time.Duration {
	every := map[string]time.Duration{}
	for _, u := range cfg.Upstreams {
		if u.Kind != config.KindLocal {
			every[u.Name] = u.KeepAlive.Std()
		}
	}
	return every
}

func quirksOf(u config.Upstream) upstream.Quirks {
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

// buildTransport makes the transport for an upstream. It trusts the authorities in the upstream's
// ca_file, if set, and dials the upstream's address, if set, in place of its host. If the registry
// redirects to another host, the transport dials that host.
func buildTransport(u config.Upstream, base *url.URL, log *slog.Logger) (*watched.Transport, error) {
	o := upstream.TransportOptions{InsecureSkipVerify: u.TLS.InsecureSkipVerify, Reach: &upstream.Reach{
		Registry: upstream.HostPort(base), Address: u.Address, Private: u.PrivateRedirects || u.Kind == config.KindECR,
	}}
	return watched.NewTransport(o, u.TLS.CAFile, log)
}
