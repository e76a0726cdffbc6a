package secrets

import (
	"path"
	"strings"
)

// PathRule recognises a file with credentials by its path.
type PathRule struct {
	// ID names the rule in findings and waivers.
	ID string
	// Description of such a file, for people.
	What string
	// Match is called with a clean path without a leading slash.
	Match func(p string) bool
}

// PathRules returns the built-in rules for paths. The stage does not apply them to empty files,
// because images contain empty files as mount points.
func PathRules() []PathRule {
	return []PathRule{
		{"path-ssh-key", "an SSH private key", named("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519")},
		{"path-aws-credentials", "AWS CLI credentials", ending(".aws/credentials")},
		{"path-docker-config", "registry credentials of Docker or Podman", ending(".docker/config.json", ".dockercfg", "containers/auth.json")},
		{"path-kube-config", "Kubernetes client credentials", ending(".kube/config")},
		{"path-gcloud-credentials", "Google Cloud CLI credentials", ending("gcloud/credentials.db", "gcloud/application_default_credentials.json")},
		{"path-azure-credentials", "Azure CLI credentials", ending(".azure/accessTokens.json", ".azure/msal_token_cache.json")},
		{"path-git-credentials", "stored Git credentials", named(".git-credentials")},
		{"path-git-directory", "a Git directory", ending(".git/config")},
		{"path-netrc", "a .netrc file with passwords", named(".netrc", "_netrc")},
		{"path-pgpass", "a PostgreSQL password file", named(".pgpass")},
		{"path-htpasswd", "a password file", named(".htpasswd")},
		{"path-dotenv", "a .env file", dotenv},
		{"path-terraform-state", "a Terraform state", func(p string) bool {
			return strings.HasSuffix(p, ".tfstate") || strings.HasSuffix(p, ".tfstate.backup")
		}},
		{"path-key-store", "a key store", func(p string) bool {
			switch path.Ext(p) {
			case ".p12", ".pfx", ".jks", ".keystore", ".ppk":
				return true
			}
			return false
		}},
		{"path-shell-history", "a shell history", named(".bash_history", ".zsh_history", ".psql_history", ".mysql_history")},
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

// ending returns a function that reports whether the last elements of a path are equal to one of
// the tails.
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
	for part := range strings.FieldsFuncSeq(base, func(r rune) bool { return strings.ContainsRune(".-_", r) }) {
		switch part {
		case "example", "sample", "template", "dist", "defaults":
			return false
		}
	}
	return true
}
