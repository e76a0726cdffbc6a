// Package examine queries registries, Redis, AWS and the bucket for dray doctor. It uses the same
// clients as the command "dray serve".
package examine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"dray/cache/fleet"
	"dray/cache/meta/redis"
	"dray/cmd/dray/bucket"
	"dray/cmd/dray/config"
	"dray/cmd/dray/doctor"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/routes"
	"dray/upstream"
	"dray/upstream/ecr"
	"dray/upstream/ecr/host"
	"dray/upstream/oci"
)

// askPatience is the default of Parts.Patience.
const askPatience = 2500 * time.Millisecond

// Parts make the clients for the queries.
type Parts struct {
	// AWS reads the configuration of the AWS SDK.
	AWS func(context.Context) (aws.Config, error)
	// Redis returns a store that is not connected yet.
	Redis func(config.Metadata) (*redis.Store, error)
	// LayerHost, if it is not empty, is a URL that replaces the hosts that send the layers of ECR.
	LayerHost string
	// EC2 and ServiceQuotas are the URLs of these APIs of AWS; empty means the URL for the region.
	EC2, ServiceQuotas string
	// Patience bounds each of two times: the time to find out the network route of layers, and the
	// time to ask for the quotas of a registry. 0 means 2.5 s.
	Patience time.Duration
}

// Options sets the functions of o that query services.
func (p Parts) Options(o doctor.Options) doctor.Options {
	o.Registries, o.Redis, o.Members, o.Identity, o.Bucket, o.Path = p.registries, p.facts, p.members, p.identity, p.bucket, p.path
	return o
}

// identity asks AWS for the ARN of dray. If the AWS configuration has no region, it asks in the
// region of the first registry that needs credentials of AWS.
func (p Parts) identity(ctx context.Context, cfg config.Config) (string, error) {
	aws, err := p.AWS(ctx)
	if err != nil {
		return "", err
	}
	for _, u := range cfg.Upstreams {
		if name, err := host.Parse(u.RegistryHost()); err == nil && u.UsesAWS() {
			aws.Region = cmp.Or(aws.Region, name.Region)
		}
	}
	arn, answered, err := ecr.Identity(ctx, aws)
	if err != nil && !answered {
		err = fmt.Errorf("%w: %w", doctor.ErrNoAnswer, err)
	}
	return arn, err
}

// path finds the network route by which this machine reaches the layers of ECR. On a machine
// without instance metadata, a request for the metadata gets no answer, so the function waits only
// for a short time.
func (p Parts) path(ctx context.Context, cfg config.Config) (ecr.Path, error) {
	var regions []string
	for _, u := range cfg.Upstreams {
		name, err := host.Parse(u.RegistryHost())
		if err != nil || u.Kind != config.KindECR {
			continue
		}
		regions = append(regions, name.Region)
		if r, err := http.NewRequest(http.MethodHead, p.layers(u), nil); err == nil {
			if proxy, err := http.ProxyFromEnvironment(r); err == nil && proxy != nil {
				return ecr.Path{Proxy: proxy.Host}, nil
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.Patience, askPatience))
	defer cancel()
	aws, err := p.AWS(ctx)
	if err != nil {
		return ecr.Path{}, err
	}
	found, err := ecr.FindPath(ctx, aws, p.EC2)
	if found.Elsewhere = !slices.Contains(regions, found.Region); found.Elsewhere {
		found.Endpoint, found.Interface = "", ""
	}
	return found, err
}

// registries makes the clients of all registries. Nothing renews the clients' tokens in the
// background. pushTo names the repository in which [doctor.Registry.PushTo] starts an upload; empty
// means none.
func (p Parts) registries(ctx context.Context, cfg config.Config, pushTo string) (all []doctor.Registry, err error) {
	quiet := slog.New(slog.DiscardHandler)
	session := sync.OnceValues(func() (*ecr.Session, error) {
		aws, err := p.AWS(ctx)
		if err != nil {
			return nil, err
		}
		return ecr.NewSession(aws, quiet), nil
	})
	pushed, repository, err := repositoryOf(cfg, pushTo)
	for _, u := range cfg.Upstreams {
		if u.Kind == config.KindLocal {
			continue
		}
		r, failed := registries.Connect(u, session, quiet)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		d := doctor.Registry{
			Name: u.Name, Address: strings.TrimSuffix(u.URL, "/") + "/v2/", Transport: r.Transport, AWS: u.UsesAWS(), Hello: r.Hello,
			Layers: p.layers(u), Pushes: u.Push,
		}
		if u.DockerHub() {
			d.Quota = func(ctx context.Context) (doctor.Quota, error) { return quota(ctx, r) }
		}
		if r.Quotas != nil {
			d.Rates = func(ctx context.Context) ([]doctor.Rate, error) { return p.rates(ctx, u, r) }
		}
		if repository != "" && pushed == u.Name {
			d.PushTo = func(ctx context.Context) error {
				return startUpload(ctx, r.Client, upstream.Repo{Name: oci.JoinRepo(u.RepositoryPrefix, repository)})
			}
		}
		all = append(all, d)
	}
	return all, err
}

// repositoryOf returns the upstream and the repository of a name. If the name is empty, both are
// empty.
func repositoryOf(cfg config.Config, name string) (upstream, repository string, err error) {
	if name == "" {
		return "", "", nil
	}
	target, _, err := routes.NamesOf(cfg).Resolve(name)
	if err != nil {
		return "", "", fmt.Errorf("--push-to %s: %s", name, oci.AsError(err).Message)
	}
	if slices.ContainsFunc(cfg.Upstreams, func(u config.Upstream) bool { return u.Name == target.Upstream && u.Kind == config.KindLocal }) {
		return "", "", fmt.Errorf("--push-to %s: dray itself is the registry of the upstream %s; name a repository of another one", name, target.Upstream)
	}
	return target.Upstream, target.Repo, nil
}

// layers returns the URL of the host that sends the layers of a registry of ECR: a bucket of S3 in
// its region (ECR user guide, "Amazon ECR interface VPC endpoints"). The URL is empty if the host
// is not known, as in partitions that the guide does not describe.
func (p Parts) layers(u config.Upstream) string {
	name, err := host.Parse(u.RegistryHost())
	if err != nil || name.Public || u.Kind != config.KindECR {
		return ""
	}
	if p.LayerHost != "" {
		return p.LayerHost
	}
	domain := "amazonaws.com"
	switch {
	case strings.HasPrefix(name.Region, "cn-"):
		domain = "amazonaws.com.cn"
	case strings.Contains(name.Region, "iso"), strings.HasPrefix(name.Region, "eusc-"):
		return ""
	}
	return fmt.Sprintf("https://prod-%s-starport-layer-bucket.s3.%s.%s/", name.Region, name.Region, domain)
}

// quota asks Docker Hub how many pulls are left. It sends the request that Docker documents
// (docs.docker.com, "Docker Hub pull usage and limits"): a HEAD, which does not count as a pull.
// StatManifest sends a GET only if Docker Hub does not serve the HEAD.
func quota(ctx context.Context, r *registries.Registry) (doctor.Quota, error) {
	_, err := r.Client.StatManifest(ctx, upstream.Repo{Name: "ratelimitpreview/test"}, oci.Reference{Tag: "latest"}, oci.AnyManifest())
	stated, ok := r.Limiter.OwnQuota()
	if !ok {
		return doctor.Quota{}, err // if err is nil, the registry states no quota
	}
	return doctor.Quota{Limit: stated.Limit, Remaining: stated.Remaining, Window: stated.Window, Source: stated.Source}, nil
}

// rates returns, for each operation whose rate the registry limits, how many requests per second
// dray may send, and the quota of the account.
func (p Parts) rates(ctx context.Context, u config.Upstream, r *registries.Registry) (all []doctor.Rate, err error) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(p.Patience, askPatience)) // a network without the internet may not answer
	defer cancel()
	quotas, err := r.Quotas(ctx, p.ServiceQuotas)
	if err != nil {
		return nil, err
	}
	for _, rate := range registries.QuirksOf(u).Rates {
		in := func(perSecond map[string]float64) float64 {
			if n, ok := perSecond[rate.Name]; ok {
				return n
			}
			return rate.PerSecond
		}
		all = append(all, doctor.Rate{Name: rate.Name, Used: in(u.Limits.Rates), Quota: in(quotas)})
	}
	return all, nil
}

// errStarted is the error by which startUpload cancels an upload that the registry has started.
var errStarted = errors.New("the upload was started")

// startUpload starts an upload and cancels it. It creates no repository.
func startUpload(ctx context.Context, client *upstream.Client, repo upstream.Repo) error {
	err := client.PutBlob(ctx, repo, upstream.Upload{Size: 1, Open: func() (io.ReadCloser, error) { return nil, errStarted }})
	if errors.Is(err, errStarted) {
		return nil
	}
	return errors.New(oci.AsError(err).Message)
}

// facts asks the Redis of a configuration for its version and its eviction policy, and tries the
// commands that dray needs.
func (p Parts) facts(ctx context.Context, cfg config.Config) (doctor.Facts, error) {
	store, err := p.Redis(cfg.Metadata)
	if err != nil {
		return doctor.Facts{}, err
	}
	defer store.Close()
	if _, _, err := store.Server(ctx); err != nil { // this call also connects, which Took does not include
		return doctor.Facts{}, err
	}
	began := time.Now()
	version, policy, err := store.Server(ctx)
	return doctor.Facts{Version: version, Policy: policy, Took: time.Since(began), Refused: store.Try(ctx, cfg.Fleet.On(cfg.Metadata))}, err
}

// members asks the Redis of a configuration for the members of the fleet.
func (p Parts) members(ctx context.Context, cfg config.Config) ([]fleet.Member, error) {
	store, err := p.Redis(cfg.Metadata)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Leases().Members(ctx)
}

// bucket looks at the bucket of a configuration, and at the settings of the bucket.
func (p Parts) bucket(ctx context.Context, cfg config.Config) (b doctor.Bucket) {
	aws, err := p.AWS(ctx)
	if err != nil {
		return doctor.Bucket{Unreached: err}
	}
	b.Missing, b.Unsupported, b.Unreached, b.Unread = bucket.Look(ctx, cfg.Bucket, aws)
	return b
}
