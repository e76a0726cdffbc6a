package ecr

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ecr/types"
	"github.com/aws/smithy-go"

	"dray/upstream"
	"dray/upstream/oci"
)

// A token that cannot be had is told with its true reason, and never takes the registry for one
// that fails.
func TestNoToken(t *testing.T) {
	refused := &smithy.GenericAPIError{Code: "UnrecognizedClientException", Fault: smithy.FaultClient}
	for _, test := range []struct {
		role string
		err  error
		want string
	}{
		{err: fmt.Errorf("get identity: get credentials: %w", errors.New("no EC2 IMDS role found, operation error ec2imds: GetMetadata, canceled, context deadline exceeded")), want: "has no AWS credentials; set AWS_PROFILE"},
		{err: fmt.Errorf("get identity: %w", &net.DNSError{Name: "sso.example", IsNotFound: true}), want: "because sso.example has no address; look at the AWS configuration"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: %w", &net.DNSError{Name: "sts.eu-wst-1.amazonaws.com", IsNotFound: true}), want: "sts.eu-wst-1.amazonaws.com has no address; look at the region"},
		{err: fmt.Errorf("get identity: %w", &net.DNSError{Name: "sso.example", IsTimeout: true}), want: "cannot reach the service that gives it AWS credentials"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: get credentials: operation error STS: AssumeRole, get identity: get credentials: %w", errors.New("no EC2 IMDS role found, operation error ec2imds: GetMetadata")), want: "has no AWS credentials; set AWS_PROFILE"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: %w", &net.OpError{Op: "dial", Err: errors.New("i/o timeout")}), want: "cannot reach the service that gives it AWS credentials"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: %w", answered(503, &smithy.GenericAPIError{Code: "ServiceUnavailable"})), want: "gives this mirror no AWS credentials now (ServiceUnavailable)"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: %w", &smithy.GenericAPIError{Code: "Throttling"}), want: "gives this mirror no AWS credentials now (Throttling)"},
		{err: fmt.Errorf("get identity: %w", &smithy.GenericAPIError{Code: "InvalidIdentityToken"}), want: "AWS refuses the identity of this mirror (InvalidIdentityToken)"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: operation error STS: AssumeRole, get identity: %w", &smithy.GenericAPIError{Code: "InvalidIdentityToken"}), want: "AWS refuses the identity of this mirror (InvalidIdentityToken)"},
		{err: fmt.Errorf("get identity: %w", fmt.Errorf("get identity: %w", context.DeadlineExceeded)), want: "cannot reach the service that gives it AWS credentials"},
		{err: fmt.Errorf("get identity: %w", errors.New("open /token: no such file")), want: "cannot get its AWS credentials; look at"},
		{role: "arn:aws:iam::1:role/x", err: fmt.Errorf("get identity: %w", &smithy.GenericAPIError{Code: "AccessDenied"}), want: "assume the role arn:aws:iam::1:role/x (AccessDenied)"},
		{err: refused, want: "refuses the credentials of this mirror in the region eu-wst-1 (UnrecognizedClientException)"},
		{err: &net.DNSError{Name: "api.ecr.eu-wst-1.amazonaws.com", IsNotFound: true}, want: "api.ecr.eu-wst-1.amazonaws.com has no address; look at the region"},
		{err: &net.OpError{Op: "dial", Err: errors.New("connection refused")}, want: "eu-wst-1 cannot be reached"},
		{err: answered(500, &types.ServerException{}), want: "gives this mirror no token"},
		{err: &smithy.GenericAPIError{Code: "ThrottlingException", Fault: smithy.FaultClient}, want: "gives this mirror no token"},
	} {
		o := TokenOptions{Region: "eu-wst-1", Role: test.role}
		err := o.noToken(test.err)
		e, ok := errors.AsType[*oci.Error](err)
		if !ok || !strings.Contains(e.Message, test.want) || e.Status != 503 {
			t.Errorf("%v: %v", test.err, err)
		}
		if !errors.Is(err, upstream.ErrCredentials) || !upstream.Transient(err) || !errors.Is(err, test.err) {
			t.Errorf("%v is of another kind", err)
		}
	}
}
