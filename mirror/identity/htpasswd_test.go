package identity

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"

	"dray/upstream/oci"
)

// hashes counts by cost what a password file has hashed. Each hash takes as long as on a slow
// machine, by the clock of the test.
type hashes struct {
	mu sync.Mutex
	n  map[int]int
}

const oneHash = 60 * time.Millisecond

func (h *hashes) compare(hash, password []byte) error {
	cost, _ := bcrypt.Cost(hash)
	h.mu.Lock()
	h.n[cost]++
	h.mu.Unlock()
	time.Sleep(oneHash)
	return bcrypt.CompareHashAndPassword(hash, password)
}

func (h *hashes) all() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, x := range h.n {
		n += x
	}
	return n
}

// line is a line of a password file.
func line(t *testing.T, user, password string, cost int) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), cost)
	if err != nil {
		t.Fatal(err)
	}
	return user + ":" + string(hash) + "\n"
}

// replace writes a password file as careful programs do: beside it, and then into its place.
func replace(t *testing.T, file string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// passwords returns an HTPasswd for a file with these lines, the file, and what was hashed.
func passwords(t *testing.T, lines ...string) (*HTPasswd, string, *hashes) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "htpasswd")
	replace(t, file, lines...)
	a, err := NewHTPasswd(file, "dray", nil)
	if err != nil {
		t.Fatal(err)
	}
	h := &hashes{n: map[int]int{}}
	a.compare, a.queue = h.compare, newHashQueue(1)
	return a, file, h
}

func from(r *http.Request, address string) *http.Request {
	r.RemoteAddr = address + ":4711"
	return r
}

// A right password is hashed once, and a wrong one never passes.
func TestPasswordsAreHashedOnce(t *testing.T) {
	alice := line(t, "alice", "wonderland", bcrypt.MinCost)
	synctest.Test(t, func(t *testing.T) {
		a, file, h := passwords(t, alice)
		login := func(user, password string, want error) {
			t.Helper()
			if p, err := a.Authenticate(as(user, password), nil); !errors.Is(err, want) || err == nil && p.Name != user {
				t.Errorf("%s, %s: %v, %v", user, password, p, err)
			}
		}
		hashed := func(want int) {
			t.Helper()
			if n := h.all(); n != want {
				t.Errorf("%d passwords were hashed, want %d", n, want)
			}
		}
		// Many machines that come at once with the same password wait for one hash.
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() { login("alice", "wonderland", nil) })
		}
		all.Wait()
		hashed(1)
		for range 3 {
			login("alice", "wrong", oci.ErrUnauthorized)
			login("alice", "", oci.ErrUnauthorized)
			login("alice", "wonderland ", oci.ErrUnauthorized)
			login("mallory", "wonderland", oci.ErrUnauthorized)
			login("alicewonder", "land", oci.ErrUnauthorized)
		}
		hashed(6)
		time.Sleep(refusedFor)
		login("alice", "wrong", oci.ErrUnauthorized)
		hashed(7)
		time.Sleep(24 * time.Hour)
		login("alice", "wonderland", nil)
		hashed(7)

		// A password is remembered for as long as the file has its hash.
		replace(t, file, line(t, "bob", "wrong", bcrypt.MinCost), alice)
		login("alice", "wonderland", nil)
		hashed(7)
		replace(t, file, line(t, "alice", "wrong", bcrypt.MinCost))
		login("alice", "wonderland", oci.ErrUnauthorized)
		login("alice", "wrong", nil)
		hashed(9)
		replace(t, file, "# nobody\n")
		login("alice", "wrong", oci.ErrUnauthorized)

		if _, err := a.Authenticate(as("", ""), nil); !errors.Is(err, oci.ErrUnauthorized) {
			t.Errorf("nobody: %v", err)
		}
	})
}

// While the file cannot be used, those who were in go on for a minute, and nobody else comes in.
func TestPasswordFileBreaks(t *testing.T) {
	alice, bob := line(t, "alice", "wonderland", bcrypt.MinCost), line(t, "bob", "builder", bcrypt.MinCost)
	for name, broken := range map[string]func(t *testing.T, file string){
		"damaged": func(t *testing.T, file string) { replace(t, file, alice, "hunter2\n") },
		"missing": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, file, _ := passwords(t, alice, bob)
				in := func(user, password string) error { _, err := a.Authenticate(as(user, password), nil); return err }
				if err := in("alice", "wonderland"); err != nil {
					t.Fatal(err)
				}
				broken(t, file)
				if err := in("alice", "wonderland"); err != nil {
					t.Errorf("who was in: %v", err)
				}
				if err := in("bob", "builder"); err == nil || errors.Is(err, oci.ErrUnauthorized) || strings.Contains(err.Error(), "hunter2") {
					t.Errorf("who was not: %v", err)
				}
				time.Sleep(brokenFileGrace + time.Second)
				if err := in("alice", "wonderland"); err == nil {
					t.Error("who was in went on for longer than a minute")
				}
				replace(t, file, alice, bob)
				if err := errors.Join(in("alice", "wonderland"), in("bob", "builder")); err != nil {
					t.Errorf("with the file mended: %v", err)
				}
			})
		})
	}
}

// A name that is not in the file is checked like one that is, with the costs that the file has.
func TestUnknownUsersCostTheSame(t *testing.T) {
	for name, tc := range map[string]struct {
		lines []string
		want  []int
	}{
		"one cost":  {[]string{line(t, "alice", "wonderland", 5)}, []int{5}},
		"two costs": {[]string{line(t, "alice", "wonderland", 4), line(t, "bob", "builder", 6)}, []int{4, 6}},
		"no users":  {nil, []int{0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _, h := passwords(t, tc.lines...)
				for i := range 40 {
					// wonderland is right for somebody, and for nobody who is unknown.
					if _, err := a.Authenticate(as(fmt.Sprint("unknown", i), "wonderland"), nil); !errors.Is(err, oci.ErrUnauthorized) {
						t.Error(err)
					}
				}
				n := 0
				for _, cost := range tc.want {
					if h.n[cost] == 0 {
						t.Errorf("no unknown user had the cost %d: %v", cost, h.n)
					}
					n += h.n[cost]
				}
				if n != 40 {
					t.Errorf("unknown users had the costs %v", h.n)
				}
				// The same name always has the same cost.
				clear(h.n)
				for i := range 5 {
					_, _ = a.Authenticate(as("zoe", fmt.Sprint(i)), nil)
				}
				if len(h.n) != 1 {
					t.Errorf("one unknown user had the costs %v", h.n)
				}
			})
		})
	}
}

// A flood of wrong passwords keeps nobody out: neither users who were in, nor users who come for
// the first time, from elsewhere or under another name.
func TestFloodOfWrongPasswords(t *testing.T) {
	lines := []string{line(t, "alice", "wonderland", bcrypt.MinCost), line(t, "bob", "builder", bcrypt.MinCost), line(t, "carol", "christmas", bcrypt.MinCost)}
	for name, victim := range map[string]func(i int) string{
		"one user":   func(int) string { return "alice" },
		"many users": func(i int) string { return fmt.Sprint("user", i) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _, _ := passwords(t, lines...)
				login := func(user, password, address string) (time.Duration, error) {
					began := time.Now()
					_, err := a.Authenticate(from(as(user, password), address), nil)
					return time.Since(began), err
				}
				if _, err := login("alice", "wonderland", "192.0.2.9"); err != nil {
					t.Fatal(err)
				}
				ctx, stop := context.WithCancel(t.Context())
				var flood sync.WaitGroup
				for i := range 300 {
					flood.Go(func() {
						for ctx.Err() == nil {
							took, err := login(victim(i), fmt.Sprint(rand.Int()), "192.0.2.66")
							if !errors.Is(err, oci.ErrUnauthorized) && !errors.Is(err, oci.ErrTooManyRequests) || took > hashTimeout+time.Second {
								t.Errorf("the flood: %v after %s", err, took)
							}
							time.Sleep(100 * time.Millisecond)
						}
					})
				}
				time.Sleep(3 * time.Second)
				if took, err := login("alice", "wonderland", "192.0.2.66"); err != nil || took > 0 {
					t.Errorf("who was in: %v after %s", err, took)
				}
				if took, err := login("bob", "builder", "192.0.2.9"); err != nil || took > 4*oneHash {
					t.Errorf("a new user from elsewhere: %v after %s", err, took)
				}
				if name == "one user" {
					if took, err := login("carol", "christmas", "192.0.2.66"); err != nil || took > 4*oneHash {
						t.Errorf("a new user from the same address: %v after %s", err, took)
					}
				}
				stop()
				flood.Wait()
				if n := a.queue.waiting; n.size != 0 || len(n.groups) != 0 || a.queue.free != 1 {
					t.Errorf("after the flood: %d wait in %d groups, %d may hash", n.size, len(n.groups), a.queue.free)
				}
			})
		})
	}
}

// Machines of one network of IPv6 have one lane, and addresses of IPv4 one each.
func TestLanesOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:1": "192.0.2.1", "[::ffff:192.0.2.1]:1": "192.0.2.1",
		"[2001:db8:0:1::1]:1": "2001:db8:0:1::", "[2001:db8:0:1:ffff::2]:1": "2001:db8:0:1::", "@": "invalid IP",
	} {
		r := as("alice", "x")
		r.RemoteAddr = address
		if got := groupsOf(r, "alice"); got != [2]string{want, "alice"} {
			t.Errorf("%s: %q", address, got)
		}
	}
}

// Whatever stands in a password file, nobody without a name or a hash becomes a user of it.
func FuzzParseUsers(f *testing.F) {
	f.Add("alice:$2y$04$0oHgwMehvoe8iAWS8I.7l.KoECXrwVaC16RPfaSCU5eVTFrATuMI2\n")
	f.Add("# users\n\n:x\nalice\nbob:hunter2\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		u, bad := parseUsers(text)
		for name, x := range u.byName {
			if _, err := bcrypt.Cost(x.hash); name == "" || strings.ContainsAny(name, ":\n") || err != nil {
				t.Errorf("%q has the hash %q", name, x.hash)
			}
		}
		if n := strings.Count(text, "\n") + 1; len(bad)+len(u.order) > n || len(u.byName) > len(u.order) {
			t.Errorf("%d users and %d bad lines of %d", len(u.order), len(bad), n)
		}
	})
}
