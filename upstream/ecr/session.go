package ecr

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream/ecr/host"
)

// Principal is an identity in a region, with the address of the AWS API.
type Principal struct {
	// Region is the region of the ECR API.
	Region string
	// RoleARN is a role to assume, with ExternalID; empty means the identity of the AWS
	// configuration.
	RoleARN, ExternalID string
	// Endpoint replaces the address of the ECR API; empty means the address from the AWS
	// configuration and the region.
	Endpoint string
	// FIPS and DualStack choose the kind of address for ECR and STS. For ECR, Endpoint overrides them.
	FIPS, DualStack bool
	// Public chooses the API of ECR Public.
	Public bool
}

// Session makes the AWS parts of registries from one AWS configuration. Registries of the same
// principal share its token.
type Session struct {
	cfg aws.Config
	log *slog.Logger

	running sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	accounts map[Principal]*account
	order    []*Tokens
	run      func(*account) // starts the renewal of a token; nil before and after Run
}

type account struct {
	cfg    aws.Config
	api    *ecr.Client
	tokens *Tokens
	stop   context.CancelFunc // ends the renewal; nil if it was not started
}

// Registry is the AWS part of one registry.
type Registry struct {
	// Host is the parsed name of the registry.
	Host host.Name
	// Tokens provides the credential.
	Tokens *Tokens
	// Creator creates repositories, and Deleter deletes images. Both are nil for ECR Public.
	Creator *Creator
	Deleter *Deleter

	cfg aws.Config // with the credentials of the registry
}

// RegistryOptions choose a registry and say how it is used.
type RegistryOptions struct {
	// Name names the upstream in metrics and logs.
	Name string
	// Host is the registry's name. Required.
	Host string
	// RoleARN, ExternalID and Endpoint are the fields of Principal with these names.
	RoleARN, ExternalID, Endpoint string
	// Template describes the repositories to create.
	Template Template
}

// NewSession returns a Session. It sends no request. A nil logger discards.
func NewSession(cfg aws.Config, log *slog.Logger) *Session {
	return &Session{cfg: cfg, log: log, accounts: map[Principal]*account{}}
}

// Open returns the AWS part of a registry. It sends no request. It fails if o.Host is not the name
// of an ECR registry.
func (s *Session) Open(o RegistryOptions) (*Registry, error) {
	h, err := host.Parse(o.Host)
	if err != nil {
		return nil, err
	}
	a := s.account(Principal{
		Region: h.Region, RoleARN: o.RoleARN, ExternalID: o.ExternalID, Endpoint: o.Endpoint,
		FIPS: h.FIPS, DualStack: h.DualStack, Public: h.Public,
	})
	if h.Public {
		return &Registry{Host: h, Tokens: a.tokens, cfg: a.cfg}, nil
	}
	return &Registry{
		Host: h, Tokens: a.tokens, cfg: a.cfg, Deleter: NewDeleter(a.api, h.Account),
		Creator: NewCreator(CreatorOptions{API: a.api, Upstream: o.Name, Account: h.Account, Template: o.Template, Logger: s.log}),
	}, nil
}

func (s *Session) account(p Principal) *account {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.accounts[p]; a != nil {
		return a
	}
	cfg := s.cfg.Copy()
	cfg.Region = p.Region
	if p.RoleARN != "" {
		role := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg, p.stsEndpoint), p.RoleARN, func(r *stscreds.AssumeRoleOptions) {
			r.RoleSessionName = "dray"
			if p.ExternalID != "" {
				r.ExternalID = &p.ExternalID
			}
		})
		cfg.Credentials = aws.NewCredentialsCache(role)
	}
	a := &account{cfg: cfg}
	o := TokenOptions{Region: p.Region, Role: p.RoleARN, Via: p.via(), Logger: s.log}
	if p.Public {
		o.API, o.Challenged = publicAPI{ecrpublic.NewFromConfig(cfg, p.publicEndpoint)}, true
	} else {
		a.api = ecr.NewFromConfig(cfg, p.endpoint)
		o.API = a.api
	}
	a.tokens = NewTokens(o)
	s.accounts[p] = a
	s.order = append(s.order, a.tokens)
	if s.run != nil {
		s.run(a)
	}
	return a
}

// [Principal.via] describes how the principal reaches AWS, for metrics.
func (p Principal) via() string {
	switch {
	case p.Endpoint != "":
		return p.Endpoint
	case p.Public:
		return "public"
	case p.FIPS && p.DualStack:
		return "fips-dualstack"
	case p.FIPS:
		return "fips"
	case p.DualStack:
		return "dualstack"
	}
	return ""
}

// endpoint sets the address of the ECR API.
func (p Principal) endpoint(o *ecr.Options) {
	if p.Endpoint != "" {
		o.BaseEndpoint = &p.Endpoint
	}
	p.kind(o.BaseEndpoint, &o.EndpointOptions.UseFIPSEndpoint, &o.EndpointOptions.UseDualStackEndpoint)
}

// publicEndpoint sets the address of the API of ECR Public, which has one kind of address only.
func (p Principal) publicEndpoint(o *ecrpublic.Options) {
	if p.Endpoint != "" {
		o.BaseEndpoint = &p.Endpoint
	}
}

type publicAPI struct{ *ecrpublic.Client }

// GetAuthorizationToken implements TokenAPI.
func (a publicAPI) GetAuthorizationToken(ctx context.Context, _ *ecr.GetAuthorizationTokenInput, _ ...func(*ecr.Options)) (*ecr.GetAuthorizationTokenOutput, error) {
	out, err := a.Client.GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil || out.AuthorizationData == nil {
		return &ecr.GetAuthorizationTokenOutput{}, err
	}
	return &ecr.GetAuthorizationTokenOutput{AuthorizationData: []types.AuthorizationData{
		{AuthorizationToken: out.AuthorizationData.AuthorizationToken, ExpiresAt: out.AuthorizationData.ExpiresAt},
	}}, nil
}

// stsEndpoint makes dray call STS at the same kind of address as the registry. Otherwise dray would
// use an address of STS that is not FIPS, or would not reach STS from a network that has only IPv6.
func (p Principal) stsEndpoint(o *sts.Options) {
	p.kind(o.BaseEndpoint, &o.EndpointOptions.UseFIPSEndpoint, &o.EndpointOptions.UseDualStackEndpoint)
}

// kind chooses the kind of address of a service. It changes nothing if there is a custom address,
// because the SDK refuses to combine a custom address with FIPS or dual-stack.
func (p Principal) kind(custom *string, fips *aws.FIPSEndpointState, dual *aws.DualStackEndpointState) {
	if custom != nil {
		return
	}
	if p.FIPS {
		*fips = aws.FIPSEndpointStateEnabled
	}
	if p.DualStack {
		*dual = aws.DualStackEndpointStateEnabled
	}
}

// Tokens returns the Tokens of each principal that Open has used and Retain has not removed, in the
// order in which Open first used them.
func (s *Session) Tokens() []*Tokens {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Tokens(nil), s.order...)
}

// Collectors returns the metrics of the tokens that Tokens returns.
func (s *Session) Collectors() (all []prometheus.Collector) {
	for _, t := range s.Tokens() {
		all = append(all, t.Collectors()...)
	}
	return all
}

// Retain removes all principals except the principals of the given tokens. It stops the renewal of
// the other tokens, and returns them. A registry that was opened before can still use its Tokens.
func (s *Session) Retain(used []*Tokens) (gone []*Tokens) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p, a := range s.accounts {
		if slices.Contains(used, a.tokens) {
			continue
		}
		if a.stop != nil {
			a.stop()
		}
		delete(s.accounts, p)
		s.order = slices.DeleteFunc(s.order, func(t *Tokens) bool { return t == a.tokens })
		gone = append(gone, a.tokens)
	}
	return gone
}

// Run renews the tokens of all principals of s, also of those that Open adds later, until ctx ends
// or Retain removes the principal. Run returns nil when ctx ends.
func (s *Session) Run(ctx context.Context) error {
	s.mu.Lock()
	s.run = func(a *account) {
		var own context.Context
		own, a.stop = context.WithCancel(ctx)
		s.running.Go(func() { _ = a.tokens.Run(own) })
	}
	for _, a := range s.accounts {
		s.run(a)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.run = nil
	s.mu.Unlock()
	s.running.Wait()
	return nil
}
