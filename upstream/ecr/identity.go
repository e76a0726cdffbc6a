package ecr

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
)

// Identity returns the ARN of the principal to which the credentials of cfg belong. The call needs
// no right (STS API reference, GetCallerIdentity). answered is false if cfg has credentials but AWS
// STS has not answered. Some networks can reach ECR but not STS.
func Identity(ctx context.Context, cfg aws.Config) (arn string, answered bool, err error) {
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return "", true, err
	}
	who, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil)
	if err != nil {
		_, refused := errors.AsType[smithy.APIError](err)
		return "", refused, err
	}
	return aws.ToString(who.Arn), true, nil
}
