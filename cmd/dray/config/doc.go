// Package config is what dray can be told: the types of the file and of the environment, how they
// are read, their defaults, and what can be wrong with them.
//
// It knows none of the parts that it configures. What only a part can judge, cmd/dray asks it
// through a [Validator]. Of dray it imports values alone: names of repositories (upstream/oci),
// secrets (upstream/auth), and the host names of Amazon ECR (upstream/ecr/host).
package config
