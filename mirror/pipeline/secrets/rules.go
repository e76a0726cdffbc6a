package secrets

import (
	"bytes"
	"slices"
)

// Rule recognises one kind of credential.
type Rule struct {
	// ID names the rule in findings and waivers.
	ID   string
	What string // describes the credential to people
	// Literals are strings. Each credential of this kind contains or follows one of these strings.
	Literals []string
	// Fold ignores case in the literals.
	Fold bool
	// Secret is called for a literal that was found at window[start:stop]. It returns the bytes that
	// identify the credential, or false if there is none. Findings show a hash of these bytes (see
	// [Fingerprint]). So the bytes either leave out the secret, or are too random for anyone to guess
	// them from the hash. The window extends at most maxSecret bytes beyond the literal on both sides.
	Secret func(window []byte, start, stop int) (secret []byte, ok bool)
}

// class is a set of bytes.
type class [256]bool

func classOf(ranges ...string) *class {
	var c class
	for _, r := range ranges {
		if len(r) == 3 && r[1] == '-' {
			for b := int(r[0]); b <= int(r[2]); b++ {
				c[b] = true
			}
			continue
		}
		for i := range len(r) {
			c[r[i]] = true
		}
	}
	return &c
}

var (
	alnum   = classOf("a-z", "A-Z", "0-9")
	word    = classOf("a-z", "A-Z", "0-9", "_", "-")
	hexa    = classOf("a-f", "0-9")
	upper32 = classOf("A-Z", "2-7")
	upperN  = classOf("A-Z", "0-9")
	base64  = classOf("a-z", "A-Z", "0-9", "+/")
	dotted  = classOf("a-z", "A-Z", "0-9", "_", "-", ".")
	graphic = classOf("!-~")
)

// run returns how many consecutive bytes from p[i] on are in the class, at most limit.
func (c *class) run(p []byte, i, limit int) int {
	n := 0
	for i+n < len(p) && n < limit && c[p[i+n]] {
		n++
	}
	return n
}

// token matches a literal and, directly after it, a run of bytes in the class c. The length of the
// run is between minLen and maxLen. The run has an entropy of at least tenths/10 bits for each
// byte. No letter or digit may come before the literal or after the run.
func token(c *class, minLen, maxLen, tenths int) func([]byte, int, int) ([]byte, bool) {
	return func(p []byte, start, stop int) ([]byte, bool) {
		if start > 0 && alnum[p[start-1]] {
			return nil, false
		}
		n := c.run(p, stop, maxLen+1)
		if n < minLen || n > maxLen || stop+n < len(p) && alnum[p[stop+n]] {
			return nil, false
		}
		body := p[stop : stop+n]
		if entropy(body) < tenths || placeholder(body) {
			return nil, false
		}
		return p[start : stop+n], true
	}
}

// placeholder recognises words that documentation has in place of secrets.
func placeholder(p []byte) bool {
	lower := bytes.ToLower(p)
	for _, w := range [][]byte{[]byte("example"), []byte("xxxxxx"), []byte("placeholder"), []byte("changeme"), []byte("your"), []byte("redacted"), []byte("000000"), []byte("123456"), []byte("abcdef")} {
		if bytes.Contains(lower, w) {
			return true
		}
	}
	return false
}

// assigned matches a literal that names a secret, then = or : with optional quotes and white space
// on both sides, then exactly n bytes of a class. These bytes have an entropy of at least tenths/10
// bits for each byte.
func assigned(c *class, n, tenths int) func([]byte, int, int) ([]byte, bool) {
	return func(p []byte, _, stop int) ([]byte, bool) {
		i, separated := stop, false
		for ; i < len(p) && i-stop < 12; i++ {
			if p[i] == '=' || p[i] == ':' {
				separated = true
			} else if !bytes.ContainsRune([]byte(" \t\"'>"), rune(p[i])) {
				break
			}
		}
		if !separated || c.run(p, i, n+1) != n {
			return nil, false
		}
		body := p[i : i+n]
		if entropy(body) < tenths || placeholder(body) {
			return nil, false
		}
		return body, true
	}
}

// parts matches a literal that is followed by sections. The sections have only bytes in the class
// c, and the given separator between them. lengths are the numbers of bytes of the sections; 0
// means one byte or more.
func parts(c *class, separator byte, lengths ...int) func([]byte, int, int) ([]byte, bool) {
	return func(p []byte, start, stop int) ([]byte, bool) {
		if start > 0 && alnum[p[start-1]] {
			return nil, false
		}
		i := stop
		for k, want := range lengths {
			n := c.run(p, i, maxSecret)
			if n == 0 || want > 0 && n != want {
				return nil, false
			}
			if i += n; k < len(lengths)-1 {
				if i >= len(p) || p[i] != separator {
					return nil, false
				}
				i++
			}
		}
		if body := p[stop:i]; entropy(body) < 30 || placeholder(body) {
			return nil, false
		}
		return p[start:i], true
	}
}

// privateKey matches a PEM block (RFC 7468) that looks like a key and is not marked as encrypted.
// Its line breaks may be escaped as in JSON.
func privateKey(p []byte, _, stop int) ([]byte, bool) {
	line := p[stop:min(len(p), stop+48)]
	end := bytes.Index(line, []byte("-----"))
	if end < 0 || !bytes.Contains(line[:end], []byte("PRIVATE KEY")) || bytes.Contains(line[:end], []byte("ENCRYPTED")) {
		return nil, false
	}
	body := p[stop+end+5:]
	if bytes.Contains(body[:min(len(body), 64)], []byte("ENCRYPTED")) {
		return nil, false
	}
	var key []byte
	for i := 0; i < len(body) && len(key) < 128; i++ {
		switch c := body[i]; {
		case base64[c] && !(i > 0 && body[i-1] == '\\' && (c == 'n' || c == 'r')):
			key = append(key, c)
		case c == '\n', c == '\r', c == '\\', c == 'n', c == 'r', c == ' ', c == '\t', c == '=':
		default:
			i = len(body)
		}
	}
	if len(key) < 40 || entropy(key) < 35 {
		return nil, false
	}
	return key, true
}

// urlPassword matches a URL that contains a password. It returns the scheme, user and host of the
// URL, without the password. People often choose weak passwords, and others could guess such a
// password from its hash.
func urlPassword(p []byte, start, stop int) ([]byte, bool) {
	n := graphic.run(p, stop, maxSecret)
	authority := p[stop : stop+n]
	if cut := bytes.IndexAny(authority, "/?#\"'`<>"); cut >= 0 {
		authority = authority[:cut]
	}
	userinfo, _, ok := cutLast(authority, '@')
	if !ok {
		return nil, false
	}
	user, password, ok := bytes.Cut(userinfo, []byte{':'})
	if !ok || len(password) < 8 || bytes.ContainsAny(password, "${}%*<>[](),") || entropy(password) < 28 || placeholder(password) {
		return nil, false
	}
	for _, w := range []string{"pass", "secret", "test"} {
		if bytes.Contains(bytes.ToLower(password), []byte(w)) {
			return nil, false
		}
	}
	return slices.Concat(p[start:stop], user, authority[len(userinfo):]), true
}

func cutLast(p []byte, sep byte) (before, after []byte, ok bool) {
	i := bytes.LastIndexByte(p, sep)
	if i < 0 {
		return nil, nil, false
	}
	return p[:i], p[i+1:], true
}

// tokenAround matches the literal with all bytes around it that are in the class c. This run of
// bytes must begin with prefix and have at least minLen bytes.
func tokenAround(c *class, prefix string, minLen int) func([]byte, int, int) ([]byte, bool) {
	return func(p []byte, start, stop int) ([]byte, bool) {
		begin := start
		for begin > 0 && c[p[begin-1]] {
			begin--
		}
		end := stop + c.run(p, stop, maxSecret)
		if end-begin < minLen || !bytes.HasPrefix(p[begin:end], []byte(prefix)) || placeholder(p[begin:end]) {
			return nil, false
		}
		return p[begin:end], true
	}
}

// Rules returns the built-in rules. The formats come from the documentation of the services that
// issue these credentials.
func Rules() []*Rule {
	return []*Rule{
		{ID: "private-key", What: "a private key", Literals: []string{"-----BEGIN "}, Secret: privateKey},
		{ID: "aws-access-key", What: "an AWS access key", Literals: []string{"AKIA", "ASIA"}, Secret: token(upper32, 16, 16, 25)},
		{ID: "aws-secret-key", What: "an AWS secret access key", Literals: []string{"aws_secret_access_key", "aws_secret_key"}, Fold: true, Secret: assigned(base64, 40, 38)},
		{ID: "github-token", What: "a GitHub token", Literals: []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_"}, Secret: token(alnum, 36, 255, 35)},
		{ID: "github-fine-grained-token", What: "a GitHub token", Literals: []string{"github_pat_"}, Secret: token(word, 82, 82, 35)},
		{ID: "gitlab-token", What: "a GitLab token", Literals: []string{"glpat-", "gldt-", "glrt-", "glcbt-"}, Secret: token(dotted, 20, 300, 30)},
		{ID: "slack-token", What: "a Slack token", Literals: []string{"xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-"}, Secret: token(word, 24, 255, 25)},
		{ID: "slack-webhook", What: "a Slack webhook", Literals: []string{"hooks.slack.com/services/"}, Secret: parts(alnum, '/', 0, 0, 24)},
		{ID: "discord-webhook", What: "a Discord webhook", Literals: []string{"discord.com/api/webhooks/", "discordapp.com/api/webhooks/"}, Secret: parts(word, '/', 0, 68)},
		{ID: "stripe-key", What: "a Stripe key", Literals: []string{"sk_live_", "rk_live_"}, Secret: token(alnum, 24, 255, 33)},
		{ID: "google-api-key", What: "a Google API key", Literals: []string{"AIza"}, Secret: token(word, 35, 35, 35)},
		{ID: "google-oauth-secret", What: "a Google OAuth client secret", Literals: []string{"GOCSPX-"}, Secret: token(word, 28, 28, 33)},
		{ID: "npm-token", What: "an npm token", Literals: []string{"npm_"}, Secret: token(alnum, 36, 36, 37)},
		{ID: "npm-auth", What: "an npm registry token", Literals: []string{":_authToken"}, Secret: assignedToken},
		{ID: "pypi-token", What: "a PyPI token", Literals: []string{"pypi-AgE"}, Secret: token(word, 50, 300, 35)},
		{ID: "docker-token", What: "a Docker Hub token", Literals: []string{"dckr_pat_", "dckr_oat_"}, Secret: token(word, 24, 64, 33)},
		{ID: "sendgrid-key", What: "a SendGrid key", Literals: []string{"SG."}, Secret: parts(word, '.', 22, 43)},
		{ID: "azure-storage-key", What: "an Azure storage key", Literals: []string{"AccountKey="}, Secret: token(base64, 86, 86, 40)},
		{ID: "digitalocean-token", What: "a DigitalOcean token", Literals: []string{"dop_v1_", "doo_v1_", "dor_v1_"}, Secret: token(hexa, 64, 64, 30)},
		{ID: "vault-token", What: "a Vault token", Literals: []string{"hvs.", "hvb."}, Secret: token(word, 80, 300, 35)},
		{ID: "databricks-token", What: "a Databricks token", Literals: []string{"dapi"}, Secret: token(hexa, 32, 32, 29)},
		{ID: "openai-key", What: "an OpenAI key", Literals: []string{"T3BlbkFJ"}, Secret: tokenAround(word, "sk-", 40)},
		{ID: "anthropic-key", What: "an Anthropic key", Literals: []string{"sk-ant-api", "sk-ant-admin"}, Secret: token(word, 80, 120, 35)},
		{ID: "huggingface-token", What: "a Hugging Face token", Literals: []string{"hf_"}, Secret: token(classOf("a-z", "A-Z"), 34, 34, 35)},
		{ID: "shopify-token", What: "a Shopify token", Literals: []string{"shpat_", "shpss_", "shpca_", "shppa_"}, Secret: token(classOf("a-f", "A-F", "0-9"), 32, 32, 29)},
		{ID: "grafana-token", What: "a Grafana token", Literals: []string{"glsa_"}, Secret: parts(alnum, '_', 32, 8)},
		{ID: "newrelic-key", What: "a New Relic key", Literals: []string{"NRAK-"}, Secret: token(upperN, 27, 27, 33)},
		{ID: "terraform-token", What: "a Terraform token", Literals: []string{".atlasv1."}, Secret: tokenAround(dotted, "", 70)},
		{ID: "pulumi-token", What: "a Pulumi token", Literals: []string{"pul-"}, Secret: token(hexa, 40, 40, 30)},
		{ID: "rubygems-key", What: "a RubyGems key", Literals: []string{"rubygems_"}, Secret: token(hexa, 48, 48, 30)},
		{ID: "age-key", What: "an age secret key", Literals: []string{"AGE-SECRET-KEY-1"}, Secret: token(upperN, 58, 58, 33)},
		{ID: "doppler-token", What: "a Doppler token", Literals: []string{"dp.pt.", "dp.st."}, Secret: token(dotted, 40, 64, 35)},
		{ID: "url-password", What: "a password in a URL", Literals: []string{
			"postgres://", "postgresql://", "mysql://", "mongodb://", "mongodb+srv://", "redis://", "rediss://", "amqp://", "amqps://",
		}, Secret: urlPassword},
	}
}

// assignedToken matches a token of 20 bytes or more after the literal. A variable instead of the
// token, such as ${TOKEN}, does not match.
func assignedToken(p []byte, _, stop int) ([]byte, bool) {
	i := stop
	for i < len(p) && (p[i] == ' ' || p[i] == '=' || p[i] == '"') {
		i++
	}
	n := word.run(p, i, maxSecret)
	if n < 20 || entropy(p[i:i+n]) < 30 || placeholder(p[i:i+n]) {
		return nil, false
	}
	return p[i : i+n], true
}
