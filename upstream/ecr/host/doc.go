// Package host parses the host names of registries of Amazon ECR, without the AWS SDK.
package host
