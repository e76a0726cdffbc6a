package ecr

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/prometheus/client_golang/prometheus"

	"dray/upstream"
	"dray/upstream/oci"
)

// CreateAPI has the calls of the ECR API that a Creator needs.
type CreateAPI interface {
	CreateRepository(context.Context, *ecr.CreateRepositoryInput, ...func(*ecr.Options)) (*ecr.CreateRepositoryOutput, error)
	PutLifecyclePolicy(context.Context, *ecr.PutLifecyclePolicyInput, ...func(*ecr.Options)) (*ecr.PutLifecyclePolicyOutput, error)
	SetRepositoryPolicy(context.Context, *ecr.SetRepositoryPolicyInput, ...func(*ecr.Options)) (*ecr.SetRepositoryPolicyOutput, error)
}

// CreatorOptions configure a Creator.
type CreatorOptions struct {
	API CreateAPI
	// Upstream names the registry in metrics and logs.
	Upstream string
	// Account is the registry id; empty for the registry of the principal.
	Account  string
	Template Template
	// Logger receives a line for each repository that was created, or that a dry run did not create.
	// Nil discards.
	Logger *slog.Logger
}

// Creator creates repositories of one registry. dray calls it only after the registry has refused a
// write because the repository is missing. If the registry itself creates repositories on push
// (creation templates with CREATE_ON_PUSH), the Creator is never called.
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
			Help: "Missing repositories that a push needed, by result: created, incomplete (created without one of its policies), existed, refused (no pattern of names matched), dry_run or failed.",
		}, []string{"result"}),
	}
}

// Collectors returns the metrics of a Creator.
func (c *Creator) Collectors() []prometheus.Collector { return []prometheus.Collector{c.outcomes} }

// Create creates a repository. If the repository exists already, Create succeeds without changing
// it. The errors are *oci.Error. ErrDenied means that the template does not allow the name, or that
// this is a dry run. An ErrDenied whose text quotes AWS means instead that AWS refuses the
// creation, for example because the principal lacks the right or has reached a quota. Other
// failures are ErrNameInvalid, ErrTooManyRequests or ErrUnavailable. If ctx is cancelled, the error
// is the cause of ctx.
func (c *Creator) Create(ctx context.Context, repo string) error {
	result, err := c.create(ctx, repo)
	c.outcomes.WithLabelValues(result).Inc()
	return err
}

func (c *Creator) create(ctx context.Context, repo string) (result string, err error) {
	if err := c.o.Template.allows(repo); err != nil {
		return "refused", oci.ErrDenied.With("repository %s does not exist, and %v", repo, err)
	}
	if c.o.Template.DryRun {
		c.o.Logger.Info("repository not created: dry run", "repository", repo, "template", c.o.Template.describe())
		return "dry_run", oci.ErrDenied.With("repository %s does not exist, and this mirror creates no repositories because of create_repositories.mode: dry_run; it would have created it with %s",
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
	// The push continues even if a policy cannot be set. It would not help to fail the push: the next
	// push would find the repository, and would set no policy either.
	result = "created"
	if err := c.setLifecycle(ctx, repo); err != nil {
		c.o.Logger.Error("repository created without its lifecycle policy; set it manually", "repository", repo, "error", err)
		result = "incomplete"
	}
	if err := c.setPolicy(ctx, repo); err != nil {
		c.o.Logger.Error("repository created without its repository policy; set it manually", "repository", repo, "error", err)
		result = "incomplete"
	}
	return result, nil
}

func (c *Creator) setLifecycle(ctx context.Context, repo string) error {
	if c.o.Template.LifecyclePolicy == "" {
		return nil
	}
	return upstream.AwaitCreated(ctx, unseen, func() error {
		_, err := c.o.API.PutLifecyclePolicy(ctx, &ecr.PutLifecyclePolicyInput{RepositoryName: &repo, LifecyclePolicyText: &c.o.Template.LifecyclePolicy, RegistryId: c.account()})
		return err
	})
}

func (c *Creator) setPolicy(ctx context.Context, repo string) error {
	if c.o.Template.RepositoryPolicy == "" {
		return nil
	}
	return upstream.AwaitCreated(ctx, unseen, func() error {
		_, err := c.o.API.SetRepositoryPolicy(ctx, &ecr.SetRepositoryPolicyInput{RepositoryName: &repo, PolicyText: &c.o.Template.RepositoryPolicy, RegistryId: c.account()})
		return err
	})
}

// account returns the registry id of a call; nil for the registry of the principal.
func (c *Creator) account() *string {
	if c.o.Account == "" {
		return nil
	}
	return &c.o.Account
}

// The function unseen reports whether err means that the API does not find the repository. This can
// happen for a moment after the creation of the repository.
func unseen(err error) bool {
	_, missing := errors.AsType[*types.RepositoryNotFoundException](err)
	return missing
}

func createError(repo string, err error) error {
	api, ok := errors.AsType[smithy.APIError](err)
	if !ok {
		return oci.ErrUnavailable.With("repository %s does not exist, and Amazon ECR cannot be reached to create it", repo).Because(err)
	}
	if credentialCode(api) {
		return oci.ErrUnavailable.With("repository %s does not exist, and AWS refused the credentials of this mirror for creating it", repo).
			Because(fmt.Errorf("%w: %w", upstream.ErrCredentials, err))
	}
	e := protocolError(err, api).With("repository %s does not exist, and creating it failed: %s", repo, api.ErrorMessage()).Because(err)
	e.Operator = errors.Is(e, oci.ErrDenied)
	return e
}

// protocolError translates the API error api, which err wraps, to the closest error of the protocol
// of registries.
func protocolError(err error, api smithy.APIError) *oci.Error {
	if failing(err) {
		return oci.ErrUnavailable
	}
	switch api.ErrorCode() {
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded":
		return oci.ErrTooManyRequests
	case "InvalidParameterException":
		return oci.ErrNameInvalid
	}
	return oci.ErrDenied
}

// failing reports whether the HTTP status of an API error is 500 or above. It does not look at the
// error code, because a failing proxy or VPC endpoint sends none.
func failing(err error) bool {
	answer, ok := errors.AsType[*smithyhttp.ResponseError](err)
	return ok && answer.HTTPStatusCode() >= http.StatusInternalServerError
}

// credentialCode reports whether an API error concerns the credentials.
func credentialCode(api smithy.APIError) bool {
	switch api.ErrorCode() {
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException":
		return true
	}
	return false
}
