package ecr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream"
	"dray/upstream/oci"
)

// CreateAPI are the calls of the ECR API that creating needs.
type CreateAPI interface {
	CreateRepository(context.Context, *ecr.CreateRepositoryInput, ...func(*ecr.Options)) (*ecr.CreateRepositoryOutput, error)
	PutLifecyclePolicy(context.Context, *ecr.PutLifecyclePolicyInput, ...func(*ecr.Options)) (*ecr.PutLifecyclePolicyOutput, error)
}

// CreatorOptions configure a Creator.
type CreatorOptions struct {
	API CreateAPI
	// Upstream names the registry in metrics and logs.
	Upstream string
	// Account is the registry id, empty for the principal's own.
	Account  string
	Template Template
	// Logger is told what was created, and what would have been. Nil discards.
	Logger *slog.Logger
}

// Creator creates repositories of one registry. It is asked only when a write was refused for the
// lack of one: where the registry creates repositories on push by itself (its creation templates
// with CREATE_ON_PUSH), it has nothing to do.
type Creator struct {
	o        CreatorOptions
	outcomes *prometheus.CounterVec
}

var _ upstream.Creator = (*Creator)(nil)

// NewCreator returns a Creator.
func NewCreator(o CreatorOptions) *Creator {
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler)).With("upstream", o.Upstream)
	return &Creator{
		o: o,
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "dray_repositories_created_total", ConstLabels: prometheus.Labels{"upstream": o.Upstream},
			Help: "Repositories that a push needed and that were missing, by result: created, incomplete (created without its lifecycle policy), existed, refused (no pattern of names matched), dry_run or failed.",
		}, []string{"result"}),
	}
}

// Collectors are the metrics of a Creator.
func (c *Creator) Collectors() []prometheus.Collector { return []prometheus.Collector{c.outcomes} }

// Create creates a repository. One that exists already is success, and is left as it is. The errors
// are *oci.Error: ErrDenied where the template does not allow the name, in a dry run, and with the
// text of AWS where the principal may not or a quota is reached; ErrNameInvalid,
// ErrTooManyRequests, ErrUnavailable.
func (c *Creator) Create(ctx context.Context, repo string) error {
	result, err := c.create(ctx, repo)
	c.outcomes.WithLabelValues(result).Inc()
	return err
}

func (c *Creator) create(ctx context.Context, repo string) (result string, err error) {
	if err := c.o.Template.allows(repo); err != nil {
		return "refused", oci.ErrDenied.With("the repository %s does not exist, and %v", repo, err)
	}
	if c.o.Template.DryRun {
		c.o.Logger.Info("repository not created: dry run", "repository", repo, "template", c.o.Template.describe())
		return "dry_run", oci.ErrDenied.With("the repository %s does not exist; this mirror only tries out the creation of repositories (create_repositories.mode: dry_run), and would have created it with %s",
			repo, c.o.Template.describe())
	}
	_, err = c.o.API.CreateRepository(ctx, c.o.Template.input(c.o.Account, repo))
	if _, ok := errors.AsType[*types.RepositoryAlreadyExistsException](err); ok {
		return "existed", nil
	}
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return "failed", context.Cause(ctx)
		}
		return "failed", createError(repo, err)
	}
	c.o.Logger.Info("repository created", "repository", repo, "template", c.o.Template.describe())
	if err := c.setLifecycle(ctx, repo); err != nil {
		// The repository is there, so the push goes on; nobody would come back for the policy alone.
		c.o.Logger.Error("repository created without its lifecycle policy: set it by hand", "repository", repo, "error", err)
		return "incomplete", nil
	}
	return "created", nil
}

func (c *Creator) setLifecycle(ctx context.Context, repo string) error {
	if c.o.Template.LifecyclePolicy == "" {
		return nil
	}
	in := &ecr.PutLifecyclePolicyInput{RepositoryName: &repo, LifecyclePolicyText: &c.o.Template.LifecyclePolicy}
	if c.o.Account != "" {
		in.RegistryId = &c.o.Account
	}
	_, err := c.o.API.PutLifecyclePolicy(ctx, in)
	return err
}

func createError(repo string, err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return oci.ErrUnavailable.With("the repository %s does not exist, and Amazon ECR cannot be reached to create it", repo).Because(err)
	}
	if credentialCode(api) {
		return oci.ErrUnavailable.With("the repository %s does not exist, and AWS refuses the credentials of this mirror to create it", repo).
			Because(fmt.Errorf("%w: %w", upstream.ErrCredentials, err))
	}
	return baseOf(api).With("the repository %s does not exist and cannot be created: %s", repo, api.ErrorMessage()).Because(err)
}

// baseOf is the error of the protocol that comes nearest to one of the API.
func baseOf(api smithy.APIError) *oci.Error {
	switch api.ErrorCode() {
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded":
		return oci.ErrTooManyRequests
	case "InvalidParameterException":
		return oci.ErrNameInvalid
	case "ServerException", "InternalFailure", "ServiceUnavailable":
		return oci.ErrUnavailable
	}
	return oci.ErrDenied
}

// credentialCode reports an error of the API that is about who asks, and not about what.
func credentialCode(api smithy.APIError) bool {
	switch api.ErrorCode() {
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException":
		return true
	}
	return false
}
