package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/distribution/distribution/v3/registry/auth"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd" // registers itself
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/bcrypt"

	"dray/upstream/oci"
)

// HTPasswd is an [Authenticator] for the users in a password file.
type HTPasswd struct {
	controller auth.AccessController
	verified   *lru.Cache[[sha256.Size]byte, recognised]
	key        []byte
	// hashing bounds the passwords that are hashed at the same time, so that guessing passwords
	// cannot take all processors from other clients.
	hashing chan struct{}
	// file is the password file, for errors.
	file string
}

// recognised is a user whose password was correct, until it has to be hashed again.
type recognised struct {
	principal Principal
	until     time.Time
}

// verifiedFor is how long a correct password is not hashed again: bcrypt takes some 50 ms, and a
// push makes dozens of requests. It is also how long a user can continue after being removed from
// the file.
const verifiedFor = time.Minute

// CheckHTPasswd reads a password file and reports every line that is not a user with a bcrypt
// hash. The error identifies lines by number, because their text may be a password.
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

// NewHTPasswd returns an HTPasswd for an htpasswd file with bcrypt hashes, which is read again
// when it changes. The file must exist and have only valid lines.
func NewHTPasswd(file, realm string) (*HTPasswd, error) {
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
	return &HTPasswd{
		controller: c, key: key, hashing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		verified: verified, file: file,
	}, nil
}

// Authenticate implements [Authenticator].
func (h *HTPasswd) Authenticate(r *http.Request, needs []Need) (Principal, error) {
	key := h.keyed(r.Header.Get("Authorization"))
	if v, ok := h.verified.Get(key); ok && time.Now().Before(v.until) {
		return v.principal, nil
	}
	select {
	case h.hashing <- struct{}{}:
		defer func() { <-h.hashing }()
	case <-r.Context().Done():
		return Principal{}, context.Cause(r.Context())
	}
	p, err := authorized(h.controller, r, needs)
	if err != nil {
		if _, ok := errors.AsType[auth.Challenge](err); !ok {
			// distribution's error quotes the line, which may be a password.
			err = cmp.Or(CheckHTPasswd(h.file), errors.New("the password file is unusable"))
		}
		return Principal{}, challenge(r, err)
	}
	if p.Name == "" {
		return Principal{}, oci.ErrDenied.With("user name is empty")
	}
	h.verified.Add(key, recognised{p, time.Now().Add(verifiedFor)})
	return p, nil
}

// keyed hashes credentials with a secret key, so that the cached value does not allow guessing
// passwords without the key. The hash is only compared; it is not a message authentication code.
func (h *HTPasswd) keyed(credentials string) [sha256.Size]byte {
	var room [256]byte // most credentials fit, and need no allocation
	return sha256.Sum256(append(append(room[:0], h.key...), credentials...))
}
