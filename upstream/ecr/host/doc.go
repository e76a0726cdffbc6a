// Package host reads the host names of registries of Amazon ECR. It needs nothing of the AWS SDK.
package host
