package ecr

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"

	"github.com/aws/smithy-go"

	"dray/upstream/auth"
	"dray/upstream/oci"
)

// unusable is the reason why there is no token. It matches auth.ErrRefused, but does not contain
// the text of auth.ErrRefused, which would be untrue for most reasons.
type unusable struct{ error }

func (u unusable) Is(target error) bool { return target == auth.ErrRefused }
func (u unusable) Unwrap() error        { return u.error }

// noToken returns the error for requests that need a token, after a call to AWS has failed with
// err. Its text says what happened, and in most cases also what to do about it.
func (o *TokenOptions) noToken(err error) error {
	say := func(format string, args ...any) error {
		return oci.ErrUnavailable.With(format, args...).Because(unusable{err})
	}
	api, answered := errors.AsType[smithy.APIError](err)
	name, unknown := errors.AsType[*net.DNSError](err)
	_, network := errors.AsType[net.Error](err)
	_, request := errors.AsType[*url.Error](err)
	// If the SDK cannot get credentials, its error contains "get identity:" (aws-sdk-go-v2,
	// service/ecr/auth.go, getIdentity).
	identity := strings.Count(err.Error(), "get identity:")
	busy := answered && (failing(err) || strings.HasPrefix(api.ErrorCode(), "Throttling"))
	switch {
	case unknown && name.IsNotFound && strings.Contains(name.Name, "."+o.Region+"."):
		return say("the AWS API of the region %s cannot be reached, because %s has no address; look at the region in the name of the registry", o.Region, name.Name)
	case unknown && name.IsNotFound:
		return say("AWS cannot be reached, because %s has no address; look at the AWS configuration of this mirror", name.Name)
	// The SDK asks the machine for credentials only if it has found no others.
	case identity > 0 && strings.Contains(err.Error(), "ec2imds"):
		return say("this mirror has no AWS credentials; set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give its machine a role")
	case identity > 0 && busy:
		return say("AWS gives this mirror no AWS credentials now (%s); dray tries again by itself", api.ErrorCode())
	// With a role, one "get identity:" means that AWS refused to let this mirror assume the role. Two
	// mean that this mirror has no identity with which to assume it.
	case identity == 1 && answered && o.Role != "":
		return say("AWS does not let this mirror assume the role %s (%s); look at the trust policy of the role", o.Role, api.ErrorCode())
	case identity > 0 && answered:
		return say("AWS refuses the identity of this mirror (%s); look at the role and the identity in the AWS configuration of this mirror, and at the trust policy of that role", api.ErrorCode())
	case identity > 0 && (network || request || errors.Is(err, context.DeadlineExceeded)):
		return say("this mirror cannot reach the service that gives it AWS credentials; look at its network and at its AWS configuration")
	case identity > 0:
		return say("this mirror cannot get its AWS credentials; look at its AWS configuration, and at the error in its log")
	case answered && !busy:
		return say("AWS refuses the credentials of this mirror in the region %s (%s); they have to be valid there and need the right %s", o.Region, api.ErrorCode(), o.rights())
	case network || request:
		return say("the ECR API of the region %s cannot be reached", o.Region)
	}
	return say("the ECR API of the region %s gives this mirror no token", o.Region)
}

// rights names the rights that a principal needs to get a token.
func (o *TokenOptions) rights() string {
	if o.Challenged {
		return "ecr-public:GetAuthorizationToken and sts:GetServiceBearerToken"
	}
	return "ecr:GetAuthorizationToken"
}
