package secrets

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// random letters of an alphabet, the same in every run.
func random(seed uint64, n int, alphabet string) string {
	r := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

const (
	lower  = "abcdefghijklmnopqrstuvwxyz"
	digits = "0123456789"
	upper  = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mixed  = lower + upper + digits
	hex16  = "abcdef" + digits
)

// samples holds a match for each rule. The parts are joined here, so that no scanner finds them
// in this file.
func samples() map[string]string {
	key := random(1, 64, mixed+"+/") + "\n" + random(2, 64, mixed+"+/")
	return map[string]string{
		"private-key":               "-----BEGIN" + " RSA PRIVATE KEY-----\n" + key + "\n-----END RSA PRIVATE KEY-----",
		"aws-access-key":            "AK" + "IA" + random(3, 16, upper+"234567"),
		"aws-secret-key":            "aws_secret_access" + "_key = " + random(4, 40, mixed+"+/"),
		"github-token":              "gh" + "p_" + random(5, 36, mixed),
		"github-fine-grained-token": "github" + "_pat_" + random(6, 22, mixed) + "_" + random(7, 59, mixed),
		"gitlab-token":              "gl" + "pat-" + random(8, 20, mixed),
		"slack-token":               "xo" + "xb-" + random(9, 12, digits) + "-" + random(10, 24, mixed),
		"slack-webhook":             "https://hooks.slack" + ".com/services/T" + random(11, 8, upper+digits) + "/B" + random(12, 8, upper+digits) + "/" + random(13, 24, mixed),
		"discord-webhook":           "https://discord" + ".com/api/webhooks/" + random(14, 18, digits) + "/" + random(15, 68, mixed),
		"stripe-key":                "sk" + "_live_" + random(16, 24, mixed),
		"google-api-key":            "AI" + "za" + random(17, 35, mixed),
		"google-oauth-secret":       "GOC" + "SPX-" + random(18, 28, mixed),
		"npm-token":                 "np" + "m_" + random(19, 36, mixed),
		"npm-auth":                  "//registry.example.com/:_auth" + "Token=" + random(20, 36, mixed),
		"pypi-token":                "py" + "pi-AgE" + random(21, 80, mixed),
		"docker-token":              "dckr" + "_pat_" + random(22, 27, mixed),
		"sendgrid-key":              "S" + "G." + random(23, 22, mixed) + "." + random(24, 43, mixed),
		"azure-storage-key":         "Account" + "Key=" + random(25, 86, mixed+"+/") + "==",
		"digitalocean-token":        "do" + "p_v1_" + random(26, 64, hex16),
		"vault-token":               "hv" + "s." + random(27, 92, mixed),
		"databricks-token":          "da" + "pi" + random(28, 32, hex16),
		"openai-key":                "sk" + "-" + random(29, 20, mixed) + "T3Blbk" + "FJ" + random(30, 20, mixed),
		"anthropic-key":             "sk-" + "ant-api" + "03-" + random(31, 93, mixed),
		"huggingface-token":         "h" + "f_" + random(32, 34, lower+upper),
		"shopify-token":             "shp" + "at_" + random(33, 32, hex16),
		"grafana-token":             "gl" + "sa_" + random(34, 32, mixed) + "_" + random(35, 8, hex16),
		"newrelic-key":              "NR" + "AK-" + random(36, 27, upper+digits),
		"terraform-token":           random(37, 14, mixed) + ".atlas" + "v1." + random(38, 67, mixed),
		"pulumi-token":              "pu" + "l-" + random(39, 40, hex16),
		"rubygems-key":              "rubygems" + "_" + random(40, 48, hex16),
		"age-key":                   "AGE-SECRET" + "-KEY-1" + random(41, 58, upper+digits),
		"doppler-token":             "dp" + ".pt." + random(42, 43, mixed),
		"url-password":              "postgres" + "://app:" + random(43, 16, mixed) + "@db.internal:5432/app",
	}
}

func scan(e *Engine, r io.Reader) []Match {
	var found []Match
	s := e.NewScanner(func(m Match) { found = append(found, m) })
	s.Reset()
	_, _ = io.Copy(struct{ io.Writer }{s}, r)
	s.End()
	return found
}

func ids(ms []Match) []string {
	var out []string
	for _, m := range ms {
		out = append(out, fmt.Sprintf("%s@%d:%d", m.Rule.ID, m.Offset, m.Line))
	}
	return out
}

func TestEveryRuleFindsItsOwnAndNothingElse(t *testing.T) {
	e, all := NewEngine(Rules()), samples()
	for _, r := range Rules() {
		t.Run(r.ID, func(t *testing.T) {
			sample, ok := all[r.ID]
			if !ok {
				t.Fatal("no sample for this rule")
			}
			text := "first line\nsecret: " + sample + "\nlast line\n"
			found := scan(e, strings.NewReader(text))
			if len(found) != 1 || found[0].Rule.ID != r.ID || found[0].Line != 2 {
				t.Fatalf("found %v in %q", ids(found), text)
			}
			if f := found[0].Fingerprint; len(f) != 16 || strings.Contains(sample, f) {
				t.Errorf("fingerprint %q", f)
			}
		})
	}
	if len(all) != len(Rules()) {
		t.Errorf("%d samples for %d rules", len(all), len(Rules()))
	}
}

// A password in a URL, which people choose, cannot be guessed from the fingerprint, because the
// fingerprint depends on the rest of the URL only.
func TestFingerprintOfAChosenPassword(t *testing.T) {
	e := NewEngine(Rules())
	of := func(url string) string {
		found := scan(e, strings.NewReader("DATABASE_URL="+url+"\n"))
		if len(found) != 1 {
			t.Fatalf("%s: found %v", url, ids(found))
		}
		return found[0].Fingerprint
	}
	const scheme = "postgres" + "://"
	one := of(scheme + "app:" + "Sommer-2026" + "@db.internal:5432/app")
	if same := of(scheme + "app:" + "Winter-2027" + "@db.internal:5432/app"); same != one {
		t.Error("the fingerprint depends on the password")
	}
	for _, other := range []string{scheme + "ops:Sommer-2026@db.internal:5432/", scheme + "app:Sommer-2026@db.example:5432/", "mysql" + "://app:Sommer-2026@db.internal:5432/"} {
		if of(other) == one {
			t.Errorf("%s has the same fingerprint", other)
		}
	}
}

// The matches do not depend on how a file is cut into pieces, or where in it a secret is.
func TestPiecesDoNotMatter(t *testing.T) {
	e := NewEngine(Rules())
	sample := samples()["github-token"]
	filler := strings.Repeat("all work and no play makes jack a dull boy\n", 4000)
	for _, at := range []int{0, 1, maxSecret - 1, maxSecret, bufferSize - maxSecret - 3, bufferSize - maxSecret, bufferSize - 40, bufferSize - 2, bufferSize - 1, bufferSize, bufferSize + 1, 2*bufferSize - maxSecret - 7, len(filler)} {
		text := filler[:at] + " " + sample + " " + filler[at:]
		want := []string{fmt.Sprintf("github-token@%d:%d", at+1, 1+strings.Count(filler[:at], "\n"))}
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)), "halves": iotest.HalfReader(strings.NewReader(text)),
		} {
			if diff := cmp.Diff(want, ids(scan(e, r))); diff != "" {
				t.Errorf("at %d, %s (-want +got):\n%s", at, name, diff)
			}
		}
	}
}

func TestInnocentTextIsLeftAlone(t *testing.T) {
	e := NewEngine(Rules())
	for _, text := range []string{
		"AKIA" + "IOSFODNN7EXAMPLE", // the key of AWS's documentation
		"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY",
		"aws_secret_access_key = ${AWS_SECRET}",
		"ghp_" + strings.Repeat("x", 36),
		"ghp_tooShort",
		"prefix" + samples()["aws-access-key"],
		samples()["aws-access-key"] + "Z",
		"-----BEGIN RSA PRIVATE KEY-----", // the parser of keys, not a key
		"-----BEGIN PUBLIC KEY-----\n" + random(1, 64, mixed) + "\n",
		"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + random(1, 64, mixed) + "\n",
		"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,AA\n\n" + random(1, 64, mixed),
		"-----BEGIN PRIVATE KEY-----\\n...\\n-----END PRIVATE KEY-----",
		"postgres://user:password@localhost/db", "postgres://user:${PASSWORD}@localhost/db", "postgres://localhost/db", "redis://:@localhost",
		"mysql://root:mysecretpw99@db", "//registry/:_authToken=${NPM_TOKEN}",
		"hf_transformers_are_all_you_need_in_python", "dapi" + strings.Repeat("0", 32),
	} {
		if found := scan(e, strings.NewReader(text)); len(found) > 0 {
			t.Errorf("%q: found %v", text, ids(found))
		}
	}
}

func TestKeyInsideJSON(t *testing.T) {
	text := `{"type": "service_account", "private_key": "-----BEGIN` + ` PRIVATE KEY-----\n` + random(1, 64, mixed) + `\n` + random(2, 64, mixed) + `\n"}`
	if got := ids(scan(NewEngine(Rules()), strings.NewReader(text))); len(got) != 1 {
		t.Errorf("found %v", got)
	}
}

// The fingerprint is part of waivers in configurations, so it must never change.
func TestFingerprintStays(t *testing.T) {
	if got := Fingerprint("aws-access-key", []byte("something")); got != "bb9ff1fbf194cff5" {
		t.Errorf("fingerprint is %s", got)
	}
	if Fingerprint("a", []byte("bc")) == Fingerprint("ab", []byte("c")) {
		t.Error("rule and secret run together")
	}
}

func TestMatchesOfOneFileAreBounded(t *testing.T) {
	var b strings.Builder
	for i := range 3 * maxMatches {
		fmt.Fprintf(&b, "AK"+"IA%s\n", random(uint64(i), 16, upper+"234567"))
	}
	if n := len(scan(NewEngine(Rules()), strings.NewReader(b.String()))); n != maxMatches {
		t.Errorf("%d matches", n)
	}
}

func TestPaths(t *testing.T) {
	want := map[string]string{
		"root/.ssh/id_rsa": "path-ssh-key", "home/ci/.aws/credentials": "path-aws-credentials", ".docker/config.json": "path-docker-config",
		"app/.env": "path-dotenv", "app/.env.production": "path-dotenv", "src/.git/config": "path-git-directory", "app/terraform.tfstate": "path-terraform-state",
		"etc/ssl/server.pfx": "path-key-store", "root/.bash_history": "path-shell-history", "root/.kube/config": "path-kube-config",
		"app/.env.example": "", "app/environment": "", "usr/share/aws/credentials": "", "etc/ssh/id_rsa.pub": "", "app/.environment": "",
		"app/.env.latest": "path-dotenv", "app/.env.distribution": "path-dotenv", "app/.env.test": "path-dotenv", "app/.env.test.local": "path-dotenv", "app/.env.local.example": "", "app/.env.dist": "",
		"app/.env.production-sample": "", "app/.env.defaults": "",
		"my.docker/config.json": "", "usr/lib/config.json": "",
	}
	for p, id := range want {
		got := ""
		for _, r := range PathRules() {
			if r.Match(p) {
				got += r.ID
			}
		}
		if got != id {
			t.Errorf("%s: %q, want %q", p, got, id)
		}
	}
}

func FuzzScanner(f *testing.F) {
	for _, s := range samples() {
		f.Add([]byte(s), 3)
	}
	e := NewEngine(Rules())
	f.Fuzz(func(t *testing.T, data []byte, cut int) {
		whole := ids(scan(e, strings.NewReader(string(data))))
		cut = max(0, min(cut, len(data)))
		pieces := ids(scan(e, io.MultiReader(strings.NewReader(string(data[:cut])), strings.NewReader(string(data[cut:])))))
		if diff := cmp.Diff(whole, pieces); diff != "" {
			t.Errorf("cut at %d (-whole +pieces):\n%s", cut, diff)
		}
	})
}

func BenchmarkScanner(b *testing.B) {
	binary := make([]byte, 8<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(binary)
	text := strings.Repeat("func (s *Server) handle(w http.ResponseWriter, r *http.Request) { // through the graph, redis://, npm_config\n", 80000)[:8<<20]
	e := NewEngine(Rules())
	for name, data := range map[string][]byte{"binary": binary, "text": []byte(text)} {
		b.Run(name, func(b *testing.B) {
			s := e.NewScanner(func(Match) {})
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				s.Reset()
				_, _ = s.Write(data)
				s.End()
			}
		})
	}
}
