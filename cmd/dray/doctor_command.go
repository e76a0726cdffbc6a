package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"

	"dray/cache/fleet"
	"dray/cmd/dray/config"
	"dray/cmd/dray/doctor"
	"dray/cmd/dray/registries"
	"dray/cmd/dray/watched"
	"dray/upstream/ecr"
	"dray/upstream/ecr/host"
)

// doctorOptions gives the doctor the parts that serve would use.
func doctorOptions(in *invocation) doctor.Options {
	return doctor.Options{
		Stdout: in.stdout, Environ: in.environ, Load: in.load, Notices: in.notices,
		Registries: doctoredRegistries, Redis: doctoredRedis, Members: doctoredMembers,
		Identity: doctoredIdentity,
	}
}

// doctoredIdentity asks AWS whom it takes dray for. Without a region in the environment, it asks in
// that of the first registry that needs credentials of AWS.
func doctoredIdentity(ctx context.Context, cfg config.Config) (string, error) {
	aws, err := awsconfig.LoadDefaultConfig(ctx, awsLog(slog.New(slog.DiscardHandler)))
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

// doctoredRegistries makes the clients of all registries. Nothing renews their tokens.
func doctoredRegistries(ctx context.Context, cfg config.Config) (all []doctor.Registry, err error) {
	quiet := slog.New(slog.DiscardHandler)
	g := &graph{log: quiet}
	for _, u := range cfg.Upstreams {
		if u.Kind == config.KindLocal {
			continue
		}
		r, failed := registries.Connect(u, func() (*ecr.Session, error) { return g.awsSession(ctx) }, quiet)
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		all = append(all, doctor.Registry{Name: u.Name, Address: strings.TrimSuffix(u.URL, "/") + "/v2/", Transport: r.Transport, AWS: u.UsesAWS(), Hello: r.Hello})
	}
	return all, err
}

// doctoredRedis asks the Redis of a configuration for its version and its policy of eviction, and
// tries what dray does there.
func doctoredRedis(ctx context.Context, cfg config.Config) (doctor.Facts, error) {
	store, err := openRedis(cfg.Metadata, watched.Watching(slog.New(slog.DiscardHandler)))
	if err != nil {
		return doctor.Facts{}, err
	}
	defer store.Close()
	if _, _, err := store.Server(ctx); err != nil { // connects
		return doctor.Facts{}, err
	}
	began := time.Now()
	version, policy, err := store.Server(ctx)
	return doctor.Facts{Version: version, Policy: policy, Took: time.Since(began), Refused: store.Try(ctx, cfg.Fleet.On(cfg.Metadata))}, err
}

// doctoredMembers asks the Redis of a configuration for the members of the fleet.
func doctoredMembers(ctx context.Context, cfg config.Config) ([]fleet.Member, error) {
	store, err := openRedis(cfg.Metadata, watched.Watching(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, err
	}
	defer store.Close()
	return store.Leases().Members(ctx)
}
