package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/crypto/bcrypt"

	"dray/mirror/flight"
	"dray/mirror/reread"
	"dray/upstream/oci"
)

// HTPasswd is an [Authenticator] for the users in a password file.
//
// A correct password is hashed once and remembered until the file has another hash for its user.
// Only credentials that are not remembered wait to be hashed. So a flood of wrong passwords does
// not delay users who were recognised before. Checking an unknown user takes as long as checking a
// known one.
type HTPasswd struct {
	realm string
	// key is random, so that nobody can guess passwords from the remembered hashes.
	key     [32]byte
	users   *reread.Value[*users]
	queue   *hashQueue
	hashing flight.Mutex[keyed] // while one request hashes its credentials, others with the same credentials wait
	refused *lru.Cache[keyed, refusal]
	compare func(hash, password []byte) error
}

// keyed is a hash of credentials and of HTPasswd.key.
type keyed [sha256.Size]byte

// refusal records that credentials were wrong.
type refusal struct {
	by    *users    // the refusal is valid only while the file has these users
	until time.Time // and it is valid only until this time
}

const (
	// refusedFor is how long wrong credentials are not hashed again, because a machine with an old
	// password sends it again and again.
	refusedFor = 10 * time.Second
	// hashTimeout bounds how long a password waits to be hashed. It leaves time for the rest of the
	// answer, because clients give up after 30 s.
	hashTimeout = 5 * time.Second
	// brokenFileGrace is how long recognised users can continue while the file cannot be used, for
	// example because an editor is writing it.
	brokenFileGrace = time.Minute
)

// users holds the content of a password file.
type users struct {
	byName map[string]*user
	order  []*user
}

type user struct {
	hash []byte
	// right identifies the last correct password; nil if there was none yet.
	right atomic.Pointer[keyed]
}

// CheckHTPasswd reads a password file. Every line must be empty, a comment, or a user with a bcrypt
// hash. The error names invalid lines by their numbers, because their text may be a password.
func CheckHTPasswd(file string) error {
	_, err := readUsers(file, nil)
	return err
}

// readUsers returns the users of a file, which is read again when it changes. A user whose hash
// stays the same keeps the remembered password.
func readUsers(file string, log *slog.Logger) (*reread.Value[*users], error) {
	var last atomic.Pointer[users]
	v, err := reread.New(log, func(texts [][]byte) (*users, error) {
		u, bad := parseUsers(string(texts[0]))
		if len(bad) > 0 {
			return nil, fmt.Errorf("no user with a bcrypt hash (htpasswd -B) in line %s", strings.Join(bad, ", "))
		}
		if old := last.Load(); old != nil {
			u.keep(old)
		}
		last.Store(u)
		return u, nil
	}, file)
	if err != nil {
		return nil, fmt.Errorf("htpasswd: %w", err)
	}
	return v, nil
}

// keep reuses each user in oldUsers whose hash has not changed.
func (u *users) keep(oldUsers *users) {
	for name, x := range u.byName {
		if was := oldUsers.byName[name]; was != nil && bytes.Equal(was.hash, x.hash) {
			u.byName[name] = was // with its remembered password
		}
	}
}

// parseUsers returns the users of a password file, and the numbers of the invalid lines. If several
// lines are for one user, the last of them counts.
func parseUsers(text string) (u *users, bad []string) {
	u = &users{byName: map[string]*user{}}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || name == "" || err != nil {
			bad = append(bad, strconv.Itoa(n))
			continue
		}
		x := &user{hash: []byte(hash)}
		u.byName[name], u.order = x, append(u.order, x)
	}
	return u, bad
}

// NewHTPasswd returns an HTPasswd for an htpasswd file with bcrypt hashes, which is read again when
// it changes. The file must exist and have only valid lines. log may be nil.
func NewHTPasswd(file, realm string, log *slog.Logger) (*HTPasswd, error) {
	u, err := readUsers(file, log)
	if err != nil {
		return nil, err
	}
	refused, err := lru.New[keyed, refusal](1024)
	if err != nil {
		return nil, fmt.Errorf("htpasswd: %w", err)
	}
	h := &HTPasswd{
		// Half of the processors stay free for requests that need no hash.
		realm: realm, users: u, queue: newHashQueue(max(1, runtime.GOMAXPROCS(0)/2)),
		refused: refused, compare: bcrypt.CompareHashAndPassword,
	}
	_, _ = rand.Read(h.key[:]) // never fails (crypto/rand)
	return h, nil
}

// Authenticate implements [Authenticator].
func (h *HTPasswd) Authenticate(r *http.Request, _ []Need) (Principal, error) {
	name, password, ok := r.BasicAuth()
	if !ok {
		return Principal{}, h.challenge(r)
	}
	u, broken := h.users.Get()
	key := h.keyed(name, password)
	if u.recognises(name, key) && (broken == nil || time.Since(broken.Since) <= brokenFileGrace) {
		return Principal{Name: name}, nil
	}
	if broken != nil {
		return Principal{}, fmt.Errorf("authenticate: htpasswd: %w", broken.Err)
	}
	ctx, cancel := context.WithTimeoutCause(r.Context(), hashTimeout, errCrowded)
	defer cancel()
	unlock, err := h.hashing.Lock(ctx, key)
	if err != nil {
		return Principal{}, err
	}
	defer unlock()
	known, err := h.check(ctx, u, name, password, groupsOf(r, name))
	if err != nil {
		return Principal{}, err
	}
	if !known {
		return Principal{}, h.challenge(r)
	}
	return Principal{Name: name}, nil
}

// check reports whether a password is correct. It hashes the password only if no result for it is
// remembered. The error is [errCrowded], or the cause of ctx's end.
func (h *HTPasswd) check(ctx context.Context, u *users, name, password string, groups [2]string) (bool, error) {
	key := h.keyed(name, password)
	if u.recognises(name, key) {
		return true, nil
	}
	if r, ok := h.refused.Get(key); ok && r.by == u && time.Now().Before(r.until) {
		return false, nil
	}
	done, err := h.queue.acquire(ctx, groups)
	if err != nil {
		return false, err
	}
	defer done()
	hash := h.decoyHash(u, name)
	who := u.byName[name]
	if who != nil {
		hash = who.hash
	}
	if h.compare(hash, []byte(password)) != nil || who == nil {
		h.refused.Add(key, refusal{by: u, until: time.Now().Add(refusedFor)})
		return false, nil
	}
	who.right.Store(&key)
	return true, nil
}

// decoyHash returns the hash with which the password of an unknown user is compared. The result of
// the comparison is ignored, but its duration must not show that the user is unknown. A hash of a
// fixed cost could show it, because the hashes in the file may differ in cost. So decoyHash returns
// the hash of one of the users, and always the same hash for a name.
func (h *HTPasswd) decoyHash(u *users, name string) []byte {
	if len(u.order) == 0 {
		return nil
	}
	k := h.keyed(name, "")
	return u.order[binary.BigEndian.Uint64(k[:])%uint64(len(u.order))].hash
}

// recognises reports whether the credentials are remembered as correct.
func (u *users) recognises(name string, key keyed) bool {
	who := u.byName[name]
	if who == nil {
		return false
	}
	right := who.right.Load()
	return right != nil && *right == key
}

func (h *HTPasswd) keyed(name, password string) keyed {
	var room [256]byte // most credentials fit, so that there is no allocation
	b := append(room[:0], h.key[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(name))) // a header is far shorter than 4 GiB
	return sha256.Sum256(append(append(b, name...), password...))
}

// challenge returns the error for credentials that are wrong or missing.
func (h *HTPasswd) challenge(r *http.Request) error {
	e := oci.ErrUnauthorized.WithStatus(http.StatusUnauthorized)
	if hasCredentials(r) {
		e = e.With(wrongCredentials)
	}
	e.Challenge = []string{fmt.Sprintf("Basic realm=%q", h.realm)}
	return e
}

// groupsOf returns the two groups of the hashQueue in which a request waits. The outer group is the
// client's network address, and the inner group is the user name in the request. A /64 network of
// IPv6 counts as one address, because one machine usually has a whole network.
func groupsOf(r *http.Request, name string) [2]string {
	a := ClientAddr(r)
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	return [2]string{a.String(), name}
}
