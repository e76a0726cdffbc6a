package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"dray/mirror/pattern"
	"dray/upstream/oci"

	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd" // registers itself
	_ "github.com/distribution/distribution/v3/registry/auth/token"    // registers itself
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/bcrypt"
)

// Action is what a right is about.
type Action string

// The actions, named as in the registry token specification.
const (
	Pull   Action = "pull"
	Push   Action = "push"
	Delete Action = "delete"
)

// Rule grants actions on repositories.
type Rule struct {
	// Users are exact names; "*" is every recognised user.
	Users []string
	// Anonymous extends the rule to clients without credentials.
	Anonymous bool
	// Repositories are patterns of the name of a target; "*" stands for any characters,
	// slashes included.
	Repositories []string
	Actions      []Action
}

// Access recognises the clients of a listener and knows their rights. A nil Access
// recognises nobody: everybody is anonymous and may pull.
type Access struct {
	controller auth.AccessController
	verified   *lru.Cache[[sha256.Size]byte, recognised]
	key        []byte
	// hashing bounds the passwords that are hashed at once: guessing them must not cost
	// everybody else the processors.
	hashing chan struct{}
	// file is the password file, to say what is wrong with it.
	file  string
	Rules []Rule
	token bool
}

// recognised is a user whose password was right, until it has to be hashed again.
type recognised struct {
	user  string
	until time.Time
}

// verifiedFor is how long a password that was right once is not hashed again:
// bcrypt costs some 50 ms, and a push makes dozens of requests. It is also how long
// a user who was removed from the file may go on.
const verifiedFor = time.Minute

// CheckHTPasswd reads a password file and reports every line that is no user with a
// bcrypt hash. The error names lines by number: what stands there may be a password.
func CheckHTPasswd(file string) error {
	text, err := os.ReadFile(filepath.Clean(file))
	if err != nil {
		return fmt.Errorf("htpasswd: %w", err)
	}
	var bad []string
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		user, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || user == "" || err != nil {
			bad = append(bad, strconv.Itoa(n))
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("htpasswd %s: no user with a bcrypt hash (htpasswd -B) in line %s", file, strings.Join(bad, ", "))
	}
	return nil
}

// NewHTPasswd reads users and bcrypt hashes from an htpasswd file, which is read
// again when it changes. The file must exist and be sound.
func NewHTPasswd(file, realm string, rules []Rule) (*Access, error) {
	// distribution would create a missing file, with a user of its own.
	if err := CheckHTPasswd(file); err != nil {
		return nil, err
	}
	c, err := auth.GetAccessController("htpasswd", map[string]any{"realm": realm, "path": file})
	if err != nil {
		return nil, fmt.Errorf("htpasswd %s: %w", file, err)
	}
	verified, err := lru.New[[sha256.Size]byte, recognised](1024)
	if err != nil {
		return nil, fmt.Errorf("htpasswd: %w", err)
	}
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails (crypto/rand)
	return &Access{
		controller: c, key: key, hashing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		verified: verified, file: file, Rules: rules,
	}, nil
}

// TokenOptions describe a token service (distribution "Token Authentication
// Specification").
type TokenOptions struct {
	Realm, Service, Issuer string
	// RootCertBundle is a PEM file and JWKS a key set file; at least one is needed.
	RootCertBundle, JWKS string
}

// NewToken accepts the tokens of a token service.
func NewToken(o TokenOptions, rules []Rule) (*Access, error) {
	options := map[string]any{"realm": o.Realm, "service": o.Service, "issuer": o.Issuer}
	if o.RootCertBundle != "" {
		options["rootcertbundle"] = o.RootCertBundle
	}
	if o.JWKS != "" {
		options["jwks"] = o.JWKS
	}
	c, err := auth.GetAccessController("token", options)
	if err != nil {
		return nil, fmt.Errorf("token authentication: %w", err)
	}
	return &Access{controller: c, token: true, Rules: rules}, nil
}

// authenticate returns the user, "" for anonymous, or a challenge. want is what the
// request needs, for the token service.
func (a *Access) authenticate(r *http.Request, want []auth.Access) (string, error) {
	var key [sha256.Size]byte
	if a.verified != nil {
		key = a.keyed(r.Header.Get("Authorization"))
		if v, ok := a.verified.Get(key); ok && time.Now().Before(v.until) {
			return v.user, nil
		}
		select {
		case a.hashing <- struct{}{}:
			defer func() { <-a.hashing }()
		case <-r.Context().Done():
			return "", context.Cause(r.Context())
		}
	}
	g, err := a.controller.Authorized(r, want...)
	if err != nil {
		if _, ok := errors.AsType[auth.Challenge](err); !ok && a.file != "" {
			// distribution's text quotes the line, which may be a password.
			err = cmp.Or(CheckHTPasswd(a.file), errors.New("the password file cannot be used"))
		}
		return "", challenge(r, err)
	}
	if a.verified != nil {
		a.verified.Add(key, recognised{g.User.Name, time.Now().Add(verifiedFor)})
	}
	return g.User.Name, nil
}

// keyed is what is kept of credentials: nobody can guess passwords from it, should the
// memory be read without the key. It is no message authentication; equal or not is all
// that it is asked.
func (a *Access) keyed(credentials string) [sha256.Size]byte {
	var room [256]byte // most credentials fit, and cost no allocation
	return sha256.Sum256(append(append(room[:0], a.key...), credentials...))
}

// challenge turns the error of an access controller into a 401 with its header
// lines, and anything else into a 500.
func challenge(r *http.Request, err error) error {
	c, ok := errors.AsType[auth.Challenge](err)
	if !ok {
		return fmt.Errorf("authenticate: %w", err)
	}
	h := headerOnly{}
	c.SetHeaders(r, h)
	e := oci.ErrUnauthorized.Because(err)
	if hasCredentials(r) {
		e = oci.ErrUnauthorized.With("the credentials are wrong, or not enough for this").Because(err)
	}
	e.Challenge = http.Header(h).Values("WWW-Authenticate")
	return e
}

// headerOnly is a response of which only the header is of interest.
type headerOnly http.Header

func (h headerOnly) Header() http.Header       { return http.Header(h) }
func (headerOnly) Write(p []byte) (int, error) { return len(p), nil }
func (headerOnly) WriteHeader(int)             {}

// anonymousBasic is what skopeo sends when it has no credentials: an empty user and
// an empty password.
var anonymousBasic = "Basic " + base64.StdEncoding.EncodeToString([]byte(":"))

func hasCredentials(r *http.Request) bool {
	h := r.Header.Get("Authorization")
	return h != "" && h != anonymousBasic
}

// allows reports whether a rule grants the action. Without rules every recognised
// user may do everything; anonymous is "".
func (a *Access) allows(user, name string, action Action) bool {
	if len(a.Rules) == 0 {
		return user != "" || a.token
	}
	for _, r := range a.Rules {
		if r.grants(user, name, action) {
			return true
		}
	}
	return false
}

func (r Rule) grants(user, name string, action Action) bool {
	who := user == "" && r.Anonymous ||
		user != "" && (slices.Contains(r.Users, user) || slices.Contains(r.Users, "*") || r.Anonymous)
	if !who || !slices.Contains(r.Actions, action) {
		return false
	}
	return pattern.Any(r.Repositories, name)
}

// open reports whether some repositories need no credentials, so that a client
// without any must not be stopped at the base of the API.
func (a *Access) open() bool {
	return slices.ContainsFunc(a.Rules, func(r Rule) bool { return r.Anonymous })
}

// Role says what a listener is for.
type Role string

// The roles.
const (
	// RoleMirror pulls only, for anybody who reaches the listener unless it has an
	// Access.
	RoleMirror Role = "mirror"
	// RoleRegistry pulls and pushes, for whom its Access allows.
	RoleRegistry Role = "registry"
)

// Policy is what a listener allows.
type Policy struct {
	Role Role
	// Access recognises clients; nil recognises nobody.
	Access *Access
	// Challenge makes a mirror ask for credentials. Classic Docker answers a mirror's
	// challenge with the user's Docker Hub password, hence the default.
	Challenge bool
	// AllowAnonymousPush takes pushes from anybody where there is no Access.
	AllowAnonymousPush bool
}

// Login returns the user of a request for the base of the API. It needs nothing but an identity
// where there are identities: clients log in there, so that credentials that are shown are checked
// even where none are asked for.
func (l *Policy) Login(r *http.Request) (string, error) {
	if l.Access != nil && (hasCredentials(r) || (l.Role == RoleRegistry || l.Challenge) && !l.Access.open()) {
		return l.Authorise(r, Pull)
	}
	return "", nil
}

// Authorise decides whether the request may do what it wants with the named
// repositories (the second one is the source of a mount) and returns the user.
func (l *Policy) Authorise(r *http.Request, action Action, names ...string) (string, error) {
	if action != Pull {
		if err := l.mayWrite(r, action); err != nil {
			return "", err
		}
	}
	a := l.Access
	if a == nil {
		return "", nil
	}
	if !hasCredentials(r) {
		if a.anonymously(action, names) {
			return "", nil
		}
		if l.Role == RoleMirror && !l.Challenge {
			return "", oci.ErrDenied.With("this mirror needs credentials")
		}
	}
	want := make([]auth.Access, 0, len(names))
	for i, n := range names {
		want = append(want, auth.Access{Resource: auth.Resource{Type: "repository", Name: n}, Action: string(actionOf(action, i))})
	}
	user, err := a.authenticate(r, want)
	if err != nil {
		return "", err
	}
	for i, n := range names {
		if !a.allows(user, n, actionOf(action, i)) {
			return user, oci.ErrDenied.With("user %q may not %s %s", user, actionOf(action, i), n)
		}
	}
	return user, nil
}

// actionOf is the action on the i-th repository: the source of a mount is only read.
func actionOf(action Action, i int) Action {
	if i > 0 {
		return Pull
	}
	return action
}

func (a *Access) anonymously(action Action, names []string) bool {
	if len(names) == 0 || len(a.Rules) == 0 {
		return false
	}
	for i, n := range names {
		if !a.allows("", n, actionOf(action, i)) {
			return false
		}
	}
	return true
}

// mayWrite refuses pushes where nobody said who may: without client authentication
// they are accepted from this machine only, and never from a browser, which could
// be made to write by any page it shows. Who may push because anybody may does not delete for that.
func (l *Policy) mayWrite(r *http.Request, action Action) error {
	if l.Role != RoleRegistry {
		return oci.ErrDenied.With("this address is a pull mirror and takes no pushes")
	}
	if l.Access != nil {
		return nil
	}
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Mode") != "" {
		return oci.ErrDenied.With("pushes from a browser are refused")
	}
	if l.AllowAnonymousPush && action == Push || local(r) {
		return nil
	}
	if action == Delete {
		return oci.ErrDenied.With("deletions from other machines are refused until client authentication is configured")
	}
	return oci.ErrDenied.With("pushes from other machines are refused until client authentication is configured, or anonymous push is allowed by allow_anonymous_push")
}

// local reports whether the request was made on this machine. What a reverse proxy
// forwards is not, wherever the proxy runs.
func local(r *http.Request) bool {
	for _, h := range []string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return r.ProtoAtLeast(1, 1) && // nginx speaks 1.0 to what it stands before, unless told otherwise
		ClientAddr(r).IsLoopback()
}

// ClientAddr is the address of the connection's other end.
func ClientAddr(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	return a.Unmap()
}
