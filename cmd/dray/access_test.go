package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"golang.org/x/crypto/bcrypt"

	"dray/mirror/fixture"
	"dray/upstream/ecrtest"
	"dray/upstream/oci"
)

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// passwordsOf writes a password file and returns its path.
func passwordsOf(t testing.TB, users map[string]string) string {
	t.Helper()
	var file strings.Builder
	for user, password := range users {
		hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&file, "%s:%s\n", user, hash)
	}
	path := filepath.Join(t.TempDir(), "htpasswd")
	if err := os.WriteFile(path, []byte(file.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// usersOf is the auth section of a configuration that knows alice, bob and carol, with rules in
// YAML.
func usersOf(t testing.TB, rules string) string {
	t.Helper()
	path := passwordsOf(t, map[string]string{"alice": "wonderland", "bob": "builder", "carol": "christmas"})
	if rules != "" {
		rules = ", rules: [" + rules + "]"
	}
	return "auth: [{name: people, htpasswd: {file: " + path + ", realm: dray of the test}" + rules + "}]"
}

// withAuth are the edits that put an auth section before the listener; more goes into the listener.
func withAuth(section, more string) []string {
	return []string{"{name: main,", "{name: main, auth: people," + more, "cache: {", section + "\ncache: {"}
}

// from sends a request by a connection from the given address.
func (s *stack) from(address, method, path string, body []byte, headers ...string) got {
	s.Helper()
	r := httptest.NewRequestWithContext(s.Context(), method, path, bytes.NewReader(body))
	r.RemoteAddr, r.Host = address, "127.0.0.1:5000"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	s.servers[0].ServeHTTP(w, r)
	return got{w.Result(), w.Body.Bytes()}
}

func TestAccessMirrorTakesNoPushes(t *testing.T) {
	s := startStack(t, t.TempDir(), "{name: main,", "{name: main, role: mirror,")
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	before := s.ecr.Uploads()
	d := digest.FromString("x").String()
	for _, tc := range [][2]string{
		{"POST", "/v2/team/app/blobs/uploads/"}, {"POST", "/v2/team/app/blobs/uploads/?mount=" + d + "&from=team/b"},
		{"PATCH", "/v2/team/app/blobs/uploads/A"}, {"PUT", "/v2/team/app/blobs/uploads/A?digest=" + d}, {"GET", "/v2/team/app/blobs/uploads/A"},
		{"DELETE", "/v2/team/app/blobs/uploads/A"}, {"PUT", "/v2/team/app/manifests/v2"},
	} {
		s.refused(403, "DENIED", tc[0], tc[1], []byte("x"))
	}
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil)
	if s.ecr.Uploads() != before {
		t.Errorf("uploads at the upstream: %+v", s.ecr.Uploads())
	}
}

// Classic Docker answers a mirror's challenge with the user's Docker Hub password, so a mirror asks
// only when told to.
func TestAccessMirrorChallengesOnlyWhenTold(t *testing.T) {
	for _, challenge := range []bool{false, true} {
		t.Run(fmt.Sprint(challenge), func(t *testing.T) {
			s := startStack(t, t.TempDir(), withAuth(usersOf(t, ""), fmt.Sprintf(" role: mirror, challenge: %t,", challenge))...)
			seed(t, s.ecr, "team/app", "v1", 1<<10)
			for _, path := range []string{"/v2/", "/v2/team/app/manifests/v1", "/v2/team/app/tags/list"} {
				r := s.do("GET", path, nil)
				asks := r.Header.Get("WWW-Authenticate") != ""
				if asks != challenge || (r.StatusCode == 401) != challenge {
					t.Errorf("%s: %s, challenge %q", path, r.Status, r.Header.Get("WWW-Authenticate"))
				}
			}
			s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Authorization", basic("alice", "wonderland"))
		})
	}
	s := startStack(t, t.TempDir(), "{name: main,", "{name: main, role: mirror,")
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	// Without users there is no challenge, and dray ignores credentials that a client sends anyway.
	s.want(200, "GET", "/v2/", nil)
	s.want(200, "GET", "/v2/team/app/manifests/v1", nil, "Authorization", basic("somebody", "something"))
}

// Without users a registry takes pushes from this machine alone.
func TestAccessPushWithoutUsers(t *testing.T) {
	const away, here, here6 = "192.0.2.7:4711", "127.0.0.1:4711", "[::1]:4711"
	for _, tc := range []struct {
		name, address string
		open          bool
		headers       []string
		ok            bool
	}{
		{"this machine", here, false, nil, true},
		{"this machine over IPv6", here6, false, nil, true},
		{"this machine by IPv4 in IPv6", "[::ffff:127.0.0.1]:4711", false, nil, true},
		{"another machine", away, false, nil, false},
		{"another machine over IPv6", "[2001:db8::1]:4711", false, nil, false},
		{"no address", "@", false, nil, false},
		{"another machine where all may push", away, true, nil, true},
		{"a proxy on this machine", here, false, []string{"X-Forwarded-For", "127.0.0.1"}, false},
		{"a proxy that speaks RFC 7239", here, false, []string{"Forwarded", "for=127.0.0.1"}, false},
		{"a proxy that only says Via", here, false, []string{"Via", "1.1 proxy"}, false},
		{"a proxy where all may push", here, true, []string{"X-Forwarded-For", "192.0.2.1"}, true},
		{"a browser", here, false, []string{"Origin", "https://evil.example"}, false},
		{"a browser with an opaque origin", here, false, []string{"Origin", "null"}, false},
		{"a browser without origin", here, false, []string{"Sec-Fetch-Mode", "no-cors"}, false},
		{"a browser where all may push", here, true, []string{"Origin", "https://evil.example"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), "{name: main,", fmt.Sprintf("{name: main, allow_anonymous_push: %t,", tc.open))
			seed(t, s.ecr, "team/app", "v1", 1<<10)
			r := s.from(tc.address, "POST", "/v2/team/app/blobs/uploads/", nil, tc.headers...)
			if tc.ok {
				if r.StatusCode != 202 {
					t.Errorf("%s: %s", r.Status, r.body)
				}
				return
			}
			msg := s.checkError(r, "POST", 403, "DENIED")
			if tc.address == away && !strings.Contains(msg, "allow_anonymous_push") {
				t.Errorf("the message does not say what to do: %s", msg)
			}
			// Pulling is not in question.
			if r := s.from(tc.address, "GET", "/v2/team/app/manifests/v1", nil, tc.headers...); r.StatusCode != 200 {
				t.Errorf("pull: %s", r.Status)
			}
		})
	}
}

func TestAccessHTPasswd(t *testing.T) {
	s := startStack(t, t.TempDir(), withAuth(usersOf(t, `
		{users: [alice], repositories: ["team/*", "cache/*"], actions: [pull, push]},
		{users: [bob], repositories: ["team/*"], actions: [pull]},
		{users: ["*"], repositories: ["shared/x*y"], actions: [pull]},
		{anonymous: true, repositories: ["hub/library/*"], actions: [pull]}`), "")...)
	for _, repo := range []string{"team/app", "cache/app", "shared/x-y", "shared/x-yz", "private/app"} {
		seed(t, s.ecr, repo, "v1", 1<<10)
	}
	seed(t, s.hub, "library/alpine", "3", 1<<10)
	seed(t, s.hub, "org/app", "3", 1<<10)
	alice, bob, carol := basic("alice", "wonderland"), basic("bob", "builder"), basic("carol", "christmas")
	const start = "/blobs/uploads/"
	for _, tc := range []struct {
		who, method, path string
		status            int
	}{
		{"", "GET", "team/app/manifests/v1", 401},
		{"Basic Og==", "GET", "team/app/manifests/v1", 401},
		{basic("alice", "wrong"), "GET", "team/app/manifests/v1", 401},
		{basic("mallory", "wonderland"), "GET", "team/app/manifests/v1", 401},
		{basic("alice", ""), "GET", "team/app/manifests/v1", 401},
		{"Basic !!!", "GET", "team/app/manifests/v1", 401},
		{"Bearer wonderland", "GET", "team/app/manifests/v1", 401},
		{alice, "GET", "team/app/manifests/v1", 200},
		{alice, "HEAD", "team/app/manifests/v1", 200},
		{alice, "GET", "team/app/tags/list", 200},
		{alice, "POST", "team/app" + start, 202},
		{alice, "GET", "private/app/manifests/v1", 403},
		{alice, "POST", "private/app" + start, 403},
		{alice, "GET", "private/app/tags/list", 403},
		{bob, "GET", "team/app/manifests/v1", 200},
		{bob, "POST", "team/app" + start, 403},
		{bob, "PUT", "team/app/manifests/v2", 403},
		{bob, "GET", "team/app" + start + "A", 403},
		{carol, "GET", "team/app/manifests/v1", 403},
		{carol, "GET", "shared/x-y/manifests/v1", 200},
		{carol, "GET", "shared/x-yz/manifests/v1", 403},
		{"", "GET", "shared/x-y/manifests/v1", 401},
		// Pulls without credentials also work with credentials, and with skopeo's empty ones.
		{"", "GET", "hub/library/alpine/manifests/3", 200},
		{"", "GET", "hub/alpine/manifests/3", 200},
		{"", "GET", "library/alpine/manifests/3?ns=docker.io", 200},
		{"Basic Og==", "GET", "hub/alpine/manifests/3", 200},
		{carol, "GET", "hub/alpine/manifests/3", 200},
		{"", "GET", "hub/org/app/manifests/3", 401},
		{alice, "GET", "hub/org/app/manifests/3", 403},
		// The source of a mount has to be readable.
		{alice, "POST", "team/app" + start + "?mount=" + digest.FromString("x").String() + "&from=cache/app", 202},
		{alice, "POST", "team/app" + start + "?mount=" + digest.FromString("x").String() + "&from=private/app", 403},
		{bob, "POST", "team/app" + start + "?mount=" + digest.FromString("x").String() + "&from=team/app", 403},
	} {
		var headers []string
		if tc.who != "" {
			headers = []string{"Authorization", tc.who}
		}
		what := tc.method + " /v2/" + tc.path + " as " + tc.who
		r := s.do(tc.method, "/v2/"+tc.path, nil, headers...)
		switch {
		case tc.status == 401:
			s.checkError(r, what, 401, "UNAUTHORIZED")
			if c := r.Header.Get("WWW-Authenticate"); c != `Basic realm="dray of the test"` {
				t.Errorf("%s: challenge %q", what, c)
			}
		case tc.status == 403:
			s.checkError(r, what, 403, "DENIED")
		case r.StatusCode != tc.status:
			t.Errorf("%s: %s, want %d\n%s", what, r.Status, tc.status, r.body)
		}
	}
}

// Each request that auth turns down is counted by its reason, and no name of a user is in a metric.
func TestAccessFailuresAreCounted(t *testing.T) {
	s := startStack(t, t.TempDir(), withAuth(usersOf(t, `{users: [alice], repositories: [team/*], actions: [pull]}`), "")...)
	const get = "/v2/team/app/manifests/v1"
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	s.want(401, "GET", get, nil)
	s.want(401, "GET", get, nil, "Authorization", basic("alice", "wrong"))
	s.want(401, "GET", get, nil, "Authorization", basic("mallory", "wonderland"))
	s.want(200, "GET", get, nil, "Authorization", basic("alice", "wonderland"))
	s.want(403, "GET", "/v2/other/app/manifests/v1", nil, "Authorization", basic("alice", "wonderland"))
	want := `
# HELP dray_auth_failures_total Requests that an auth entry refused, by reason: no credentials (as in the first request of most clients), refused (wrong credentials), not allowed (no rule allows the request), not checked (too many passwords wait for their check, or the password file cannot be used).
# TYPE dray_auth_failures_total counter
dray_auth_failures_total{auth="people",reason="no credentials"} 1
dray_auth_failures_total{auth="people",reason="not allowed"} 1
dray_auth_failures_total{auth="people",reason="not checked"} 0
dray_auth_failures_total{auth="people",reason="refused"} 2
`
	if err := testutil.GatherAndCompare(s.metrics, strings.NewReader(want), "dray_auth_failures_total"); err != nil {
		t.Error(err)
	}
}

// docker login asks at the base of the API: the password is checked there even where some
// repositories need none.
func TestAccessBase(t *testing.T) {
	for name, tc := range map[string]struct {
		rules     string
		anonymous int
	}{
		"users only":    {"", 401},
		"some are open": {`{users: ["*"], repositories: ["*"], actions: [push]}, {anonymous: true, repositories: ["*"], actions: [pull]}`, 200},
	} {
		t.Run(name, func(t *testing.T) {
			s := startStack(t, t.TempDir(), withAuth(usersOf(t, tc.rules), "")...)
			s.want(tc.anonymous, "GET", "/v2/", nil)
			s.want(200, "GET", "/v2/", nil, "Authorization", basic("alice", "wonderland"))
			s.want(401, "GET", "/v2/", nil, "Authorization", basic("alice", "wrong"))
		})
	}
}

// A password file that is missing stops the start and is never made: distribution would write one
// with a user of its own.
func TestAccessPasswordFileMissing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "htpasswd")
	section := "auth: [{name: people, htpasswd: {file: " + path + "}}]"
	config := write(t, "dray.yaml", strings.NewReplacer(withAuth(section, "")...).Replace(
		strings.NewReplacer("ECR_HOST", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", "ECR_ADDR", "127.0.0.1:1", "HUB_ADDR", "127.0.0.1:2", "CACHE_DIR", t.TempDir()).Replace(stackConfig)))
	code, _, stderr := runDray(t, []string{"DRAY_CONFIG=" + config}, "serve")
	if code == 0 || !strings.Contains(stderr, path) {
		t.Errorf("code %d: %s", code, stderr)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file was made: %v", err)
	}
}

// tokenService makes tokens as a registry token service does ("Token Authentication Implementation"
// of distribution).
type tokenService struct {
	key *ecdsa.PrivateKey
	der []byte
	// signer is how tokens name the key that signed them.
	signer map[string]any
}

func newTokenService(t testing.TB) *tokenService {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "token service"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tokenService{key: key, der: der}
}

func b64(p []byte) string { return base64.RawURLEncoding.EncodeToString(p) }

func (ts *tokenService) jwks(t testing.TB) string {
	t.Helper()
	raw, err := ts.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return write(t.(*testing.T), "jwks.json", fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"one","x":%q,"y":%q}]}`, b64(raw[1:33]), b64(raw[33:])))
}

func (ts *tokenService) bundle(t testing.TB) string {
	return write(t.(*testing.T), "roots.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ts.der})))
}

// sign makes a token; claims are over the usual ones, and scope is "repo:action,action".
func (ts *tokenService) sign(t testing.TB, claims map[string]any, scopes ...string) string {
	t.Helper()
	var access []map[string]any
	for _, s := range scopes {
		name, actions, _ := strings.Cut(s, ":")
		access = append(access, map[string]any{"type": "repository", "name": name, "actions": strings.Split(actions, ",")})
	}
	now := time.Now()
	all := map[string]any{"iss": "issuer", "sub": "ci", "aud": "dray", "iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(5 * time.Minute).Unix(), "jti": rand.Text(), "access": access}
	maps.Copy(all, claims)
	head := map[string]any{"typ": "JWT", "alg": "ES256"}
	maps.Copy(head, ts.signer)
	header, err := json.Marshal(head)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed := b64(header) + "." + b64(body)
	sum := sha256.Sum256([]byte(signed))
	r, sig, err := ecdsa.Sign(rand.Reader, ts.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return "Bearer " + signed + "." + b64(append(r.FillBytes(make([]byte, 32)), sig.FillBytes(make([]byte, 32))...))
}

func TestAccessToken(t *testing.T) {
	service := newTokenService(t)
	t.Run("key set", func(t *testing.T) {
		service.signer = map[string]any{"kid": "one"}
		testAccessToken(t, service, "jwks: "+service.jwks(t))
	})
	t.Run("certificate", func(t *testing.T) {
		service.signer = map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(service.der)}}
		testAccessToken(t, service, "root_cert_bundle: "+service.bundle(t))
	})
}

// A token service may get a new key while dray runs.
func TestAccessTokenKeysAreReadAgain(t *testing.T) {
	former, next := newTokenService(t), newTokenService(t)
	contents := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	for key, tc := range map[string]struct {
		file, next string
		signer     func(*tokenService) map[string]any
	}{
		"jwks": {former.jwks(t), contents(next.jwks(t)), func(*tokenService) map[string]any { return map[string]any{"kid": "one"} }},
		"root_cert_bundle": {former.bundle(t), contents(next.bundle(t)), func(ts *tokenService) map[string]any {
			return map[string]any{"x5c": []string{base64.StdEncoding.EncodeToString(ts.der)}}
		}},
	} {
		t.Run(key, func(t *testing.T) {
			s := startStack(t, t.TempDir(), withAuth("auth: [{name: people, token: {realm: 'https://auth.example.com/token', service: dray, issuer: issuer, "+key+": "+tc.file+"}}]", "")...)
			gets := func(service *tokenService, want int) {
				t.Helper()
				service.signer = tc.signer(service)
				s.want(want, "GET", "/v2/", nil, "Authorization", service.sign(t, nil))
			}
			gets(former, 200)
			gets(next, 401)
			fixture.Replace(t, tc.file, "half of a")
			gets(former, 200)
			fixture.Replace(t, tc.file, tc.next)
			gets(next, 200)
			gets(former, 401)
		})
	}
}

func testAccessToken(t *testing.T, service *tokenService, keys string) {
	s := startStack(t, t.TempDir(), withAuth("auth: [{name: people, token: {realm: 'https://auth.example.com/token', service: dray, issuer: issuer, "+keys+"}}]", "")...)
	seed(t, s.ecr, "team/app", "v1", 1<<10)
	const get = "/v2/team/app/manifests/v1"
	const start = "/v2/team/app/blobs/uploads/"
	challenge := func(r got) string { return r.Header.Get("WWW-Authenticate") }
	const service1 = `Bearer realm="https://auth.example.com/token",service="dray"`

	r, _ := s.refused(401, "UNAUTHORIZED", "GET", "/v2/", nil)
	if challenge(r) != service1 {
		t.Errorf("challenge %q", challenge(r))
	}
	r, _ = s.refused(401, "UNAUTHORIZED", "GET", get, nil)
	if challenge(r) != service1+`,scope="repository:team/app:pull"` {
		t.Errorf("challenge %q", challenge(r))
	}
	r, _ = s.refused(401, "UNAUTHORIZED", "POST", start+"?mount="+digest.FromString("x").String()+"&from=team/b", nil)
	if c := challenge(r); !strings.Contains(c, "repository:team/app:push") || !strings.Contains(c, "repository:team/b:pull") {
		t.Errorf("challenge of a mount %q", c)
	}
	s.want(200, "GET", "/v2/", nil, "Authorization", service.sign(t, nil))
	pull := service.sign(t, nil, "team/app:pull")
	s.want(200, "GET", get, nil, "Authorization", pull)
	s.want(202, "POST", start, nil, "Authorization", service.sign(t, nil, "team/app:pull,push"))
	s.want(202, "POST", start+"?mount="+digest.FromString("x").String()+"&from=team/b", nil, "Authorization", service.sign(t, nil, "team/app:pull,push", "team/b:pull"))

	old := time.Now().Add(-time.Hour).Unix()
	stranger := newTokenService(t)
	stranger.signer = service.signer
	last := pull[len(pull)-4:]
	for name, tc := range map[string]struct{ method, path, token, reason string }{
		"expired":             {"GET", get, service.sign(t, map[string]any{"exp": old}, "team/app:pull"), "invalid_token"},
		"not yet":             {"GET", get, service.sign(t, map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}, "team/app:pull"), "invalid_token"},
		"wrong audience":      {"GET", get, service.sign(t, map[string]any{"aud": "other"}, "team/app:pull"), "invalid_token"},
		"wrong issuer":        {"GET", get, service.sign(t, map[string]any{"iss": "other"}, "team/app:pull"), "invalid_token"},
		"another repository":  {"GET", get, service.sign(t, nil, "team/other:pull"), "insufficient_scope"},
		"pull is not push":    {"POST", start, pull, "insufficient_scope"},
		"mount source hidden": {"POST", start + "?mount=" + digest.FromString("x").String() + "&from=team/b", service.sign(t, nil, "team/app:pull,push"), "insufficient_scope"},
		"no scope":            {"GET", get, service.sign(t, nil), "insufficient_scope"},
		"another signer":      {"GET", get, stranger.sign(t, nil, "team/app:pull"), ""},
		"broken signature":    {"GET", get, strings.TrimSuffix(pull, last) + strings.Map(func(r rune) rune { return 'A' }, last), ""},
		"not a token":         {"GET", get, "Bearer hello", "invalid_token"},
		"a password":          {"GET", get, basic("ci", "x"), ""},
	} {
		r, _ := s.refused(401, "UNAUTHORIZED", tc.method, tc.path, nil, "Authorization", tc.token)
		if c := challenge(r); !strings.HasPrefix(c, service1) || tc.reason != "" && !strings.Contains(c, `error="`+tc.reason+`"`) {
			t.Errorf("%s: challenge %q", name, c)
		}
	}
}

// recording is a log that can be searched.
type recording struct{ fixture.Log }

// Nothing that authenticates one side gets to the other, or into the log: the clients' passwords
// and dray's own tokens, through pulls, pushes and every kind of failure.
func TestAccessSecretsStayOnTheirSide(t *testing.T) {
	log := &recording{}
	s := startLogging(t, log, ecrtest.Start(t, ecrtest.Options{}), ecrtest.Start(t, ecrtest.Options{Quirks: ecrtest.Hub()}), t.TempDir(), withAuth(usersOf(t, ""), "")...)
	prior := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { slog.SetDefault(prior) })
	ecr := seed(t, s.ecr, "team/app", "v1", 10<<10)
	hub := seed(t, s.hub, "library/alpine", "3", 10<<10)
	var answers strings.Builder
	note := func(method, path string, body []byte, headers ...string) {
		r := s.do(method, path, body, append(headers, "Authorization", basic("alice", "wonderland"))...)
		fmt.Fprintf(&answers, "%s %v\n%s\n", r.Status, r.Header, r.body)
	}
	walk := func() {
		for _, path := range []string{
			"/v2/", "/v2/team/app/manifests/v1", "/v2/team/app/blobs/" + ecr.layer.String(), "/v2/team/app/tags/list", "/v2/team/app/referrers/" + ecr.manifest.Digest.String(),
			"/v2/hub/alpine/manifests/3", "/v2/hub/alpine/blobs/" + hub.layer.String(), "/v2/team/none/manifests/v1", "/v2/team/app/manifests/v7", "/v2/team/app/blobs/" + digest.FromString("x").String(),
		} {
			note("GET", path, nil)
		}
		note("POST", "/v2/team/new/blobs/uploads/?digest="+digest.FromBytes(imageConfig).String(), imageConfig)
		note("PUT", "/v2/team/new/manifests/v1", imageOf(t).Raw, "Content-Type", oci.MediaTypeOCIManifest)
	}
	secrets := map[string]string{
		"alice's password": "wonderland", "alice's header": strings.TrimPrefix(basic("alice", "wonderland"), "Basic "),
		"the AWS secret": "not-a-secret", "a password's hash": "$2a$",
	}
	walk()
	c, err := s.registries[0].Tokens.Credential(t.Context(), "")
	if err != nil || len(c.Password.Reveal()) < 100 {
		t.Fatal("no token is held", err)
	}
	secrets["ECR's token"] = c.Password.Reveal()
	secrets["ECR's token as sent"] = strings.TrimPrefix(basic(c.Username, c.Password.Reveal()), "Basic ")
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindManifestGet, ecrtest.KindTags, ecrtest.KindReferrers}, Count: -1, Status: 404, Message: "nothing here"})
	s.ecr.AddFault(ecrtest.Fault{Kinds: []ecrtest.Kind{ecrtest.KindObjectGet}, Count: 1, Close: true})
	s.ecr.ExpireTokens() // what ECR refuses is not shown either
	walk()
	s.stop()
	texts := map[string]string{"the log": log.String(), "an answer": answers.String()}
	for _, r := range []*ecrtest.Running{s.ecr, s.hub} {
		for _, e := range r.Log() {
			seen := fmt.Sprintf("%s %s %v", e.Method, e.Path, e.Request)
			if e.Request["Authorization"] != "" && e.Kind == ecrtest.KindObjectGet {
				t.Errorf("credentials at the object store: %s", seen)
			}
		}
	}
	for _, e := range s.hub.Log() {
		if a := e.Request["Authorization"]; strings.HasPrefix(a, "Basic") {
			t.Errorf("the client's credentials went to %s", e.Path)
		}
	}
	for what, secret := range secrets {
		for where, text := range texts {
			if strings.Contains(text, secret) || strings.Contains(text, url.QueryEscape(secret)) {
				t.Errorf("%s is in %s", what, where)
			}
		}
	}
	for _, mark := range []string{"X-Amz-Signature", "X-Amz-Security-Token"} {
		if strings.Contains(answers.String(), mark) {
			t.Errorf("%s is in an answer", mark)
		}
	}
	if !strings.Contains(log.String(), "msg=request") {
		t.Error("no access log was recorded")
	}
}

// An upstream learns nothing about the client but what it asks for and accepts.
func TestAccessClientHeadersStayHere(t *testing.T) {
	var mu sync.Mutex
	var seen []http.Header
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, r.Header.Clone())
		http.NotFound(w, r)
	}))
	defer upstream.Close()
	edits := append(withAuth(usersOf(t, ""), ""), "upstreams:\n", "upstreams:\n- {name: other, url: '"+upstream.URL+"', prefixes: [other], push: true}\n", "[ecr, hub]", "[ecr, hub, other]")
	s := startStack(t, t.TempDir(), edits...)
	d := digest.FromString("x").String()
	headers := []string{"Authorization", basic("alice", "wonderland"), "Cookie", "a=b", "Proxy-Authorization", "Basic eDp5", "X-Forwarded-For", "192.0.2.1",
		"Referer", "http://intranet/", "Accept-Encoding", "zstd", "X-Anything", "1", "User-Agent", "docker/29"}
	for _, path := range []string{"manifests/v1", "manifests/" + d, "blobs/" + d, "tags/list", "referrers/" + d} {
		for _, method := range []string{"GET", "HEAD"} {
			s.do(method, "/v2/other/app/"+path, nil, headers...)
		}
	}
	s.do("POST", "/v2/other/app/blobs/uploads/?digest="+d, []byte("x"), headers...)
	s.do("PUT", "/v2/other/app/manifests/v1", imageOf(t).Raw, append(headers, "Content-Type", oci.MediaTypeOCIManifest)...)
	s.stop()
	upstream.Close() // what dray gave up may still be on its way there
	mu.Lock()
	defer mu.Unlock()
	if len(seen) < 6 {
		t.Fatalf("%d requests came to the upstream", len(seen))
	}
	for _, h := range seen {
		for i := 0; i < len(headers); i += 2 {
			if v := h.Get(headers[i]); v == headers[i+1] {
				t.Errorf("%s: %s reached the upstream", headers[i], v)
			}
		}
	}
}
