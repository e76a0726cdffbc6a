package secrets

import (
	"path"
	"strings"
)

// PathRule recognises a file with credentials by its path.
type PathRule struct {
	// ID in findings and waivers.
	ID string
	// Description of such a file, for people.
	What string
	// Match is called with a clean path without a leading slash.
	Match func(p string) bool
}

// PathRules returns the built-in rules for paths. Empty files do not count: images have them as
// mount points.
func PathRules() []PathRule {
	return []PathRule{
		{"path-ssh-key", "an SSH private key", named("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")},
		{"path-aws-credentials", "the credentials of the AWS command line", ending(".aws/credentials")},
		{"path-docker-config", "the credentials of Docker or Podman", ending(".docker/config.json", ".dockercfg", "containers/auth.json")},
		{"path-kube-config", "the credentials of a Kubernetes client", ending(".kube/config")},
		{"path-gcloud-credentials", "the credentials of the Google Cloud command line", ending("gcloud/credentials.db", "gcloud/application_default_credentials.json")},
		{"path-azure-credentials", "the credentials of the Azure command line", ending(".azure/accessTokens.json", ".azure/msal_token_cache.json")},
		{"path-git-credentials", "stored Git credentials", named(".git-credentials")},
		{"path-git-directory", "the history of a source repository", ending(".git/config")},
		{"path-netrc", "passwords of a .netrc file", named(".netrc", "_netrc")},
		{"path-pgpass", "a PostgreSQL password file", named(".pgpass")},
		{"path-htpasswd", "a password file", named(".htpasswd")},
		{"path-dotenv", "an environment file of a developer", dotenv},
		{"path-terraform-state", "the state of Terraform", func(p string) bool {
			return strings.HasSuffix(p, ".tfstate") || strings.HasSuffix(p, ".tfstate.backup")
		}},
		{"path-key-store", "a store of private keys", func(p string) bool {
			switch path.Ext(p) {
			case ".p12", ".pfx", ".jks", ".keystore", ".ppk":
				return true
			}
			return false
		}},
		{"path-shell-history", "the history of a shell", named(".bash_history", ".zsh_history", ".psql_history", ".mysql_history")},
	}
}

func named(names ...string) func(string) bool {
	return func(p string) bool {
		base := path.Base(p)
		for _, n := range names {
			if base == n {
				return true
			}
		}
		return false
	}
}

// ending matches whole elements at the end of a path.
func ending(tails ...string) func(string) bool {
	return func(p string) bool {
		for _, t := range tails {
			if p == t || strings.HasSuffix(p, "/"+t) {
				return true
			}
		}
		return false
	}
}

// dotenv matches .env files, but not the samples that projects publish.
func dotenv(p string) bool {
	base := path.Base(p)
	if base != ".env" && !strings.HasPrefix(base, ".env.") {
		return false
	}
	for _, sample := range []string{"example", "sample", "template", "dist", "defaults", "test"} {
		if strings.Contains(base, sample) {
			return false
		}
	}
	return true
}
