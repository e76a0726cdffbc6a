// Package config reads dray's configuration from the file and the environment. It has the types,
// their defaults, and the validation.
//
// It does not import the packages that it configures: cmd/dray passes a [Validator] for the checks
// that need them. It imports other packages of dray only for simple tasks: names of repositories
// (upstream/oci), secrets (upstream/auth), the host names of Amazon ECR (upstream/ecr/host), lists
// of certificates (cmd/dray/certificates), and the reading of files (mirror/reread).
package config
