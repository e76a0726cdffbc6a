package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"dray/upstream"
	"dray/upstream/oci"
)

// repos is a Sink and a Creator over a set of repositories. Starting takes a second, sending ten
// more.
type repos struct {
	mu                     sync.Mutex
	there                  map[string]bool
	refused, sent, created int
	createErr              error
	stubborn               bool          // creating does not help
	after                  time.Duration // from a creation until it is seen
}

var (
	_ upstream.Sink    = (*repos)(nil)
	_ upstream.Creator = (*repos)(nil)
)

func (r *repos) start(repo string) error {
	time.Sleep(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.there[repo] {
		r.refused++
		return oci.ErrNameUnknown.Because(fmt.Errorf("%w: %s", upstream.ErrRepositoryMissing, repo))
	}
	r.sent++
	return nil
}

func (r *repos) PutBlob(_ context.Context, repo upstream.Repo, b upstream.Upload) error {
	if err := r.start(repo.Name); err != nil {
		return err
	}
	if b.Accepted != nil {
		b.Accepted()
	}
	time.Sleep(10 * time.Second)
	return nil
}

func (r *repos) PutManifest(_ context.Context, repo upstream.Repo, _ oci.Reference, m *oci.Manifest) (upstream.Pushed, error) {
	return upstream.Pushed{Digest: "x"}, r.start(repo.Name)
}

func (r *repos) Mount(_ context.Context, repo upstream.Repo, _ string, _ digest.Digest) (bool, error) {
	return true, r.start(repo.Name)
}

func (r *repos) Create(ctx context.Context, repo string) error {
	time.Sleep(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.created++
	if r.createErr == nil && !r.stubborn {
		if r.after > 0 {
			time.AfterFunc(r.after, func() { r.appear(repo) })
		} else {
			r.there[repo] = true
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.createErr
}

func (r *repos) appear(repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.there[repo] = true
}

func (r *repos) drop(repo string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.there, repo)
}

func (r *repos) expect(t *testing.T, refused, sent, created int) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused != refused || r.sent != sent || r.created != created {
		t.Errorf("%d refused, %d sent, %d created; want %d, %d, %d", r.refused, r.sent, r.created, refused, sent, created)
	}
}

func TestFirstPushCostsOneRefusalAndOneCreation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repos{there: map[string]bool{"old": true}}
		s := upstream.NewCreating(r, r)
		began := time.Now()
		var told int
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := s.PutBlob(t.Context(), upstream.Repo{Name: "new"}, upstream.Upload{Accepted: func() { mu.Lock(); told++; mu.Unlock() }})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r.expect(t, 1, 8, 1)
		if told != 8 {
			t.Errorf("Accepted was called %d times for 8 blobs", told)
		}
		// Refusal, creation and the first start are a second each; then the others start, and all send
		// at once.
		if d := time.Since(began); d != 14*time.Second {
			t.Errorf("the push took %v, want 14s: only the first start goes alone", d)
		}

		began = time.Now()
		for range 3 {
			wg.Go(func() { _ = s.PutBlob(t.Context(), upstream.Repo{Name: "old"}, upstream.Upload{}) })
		}
		wg.Wait()
		r.expect(t, 1, 11, 1)
		if d := time.Since(began); d != 12*time.Second {
			t.Errorf("a push to an existing repository took %v, want 12s", d)
		}
		if p, err := s.PutManifest(t.Context(), upstream.Repo{Name: "new"}, oci.Reference{Tag: "t"}, nil); err != nil || p.Digest != "x" {
			t.Errorf("PutManifest = %+v, %v", p, err)
		}
		if ok, err := s.Mount(t.Context(), upstream.Repo{Name: "mounted"}, "old", "d"); err != nil || !ok {
			t.Errorf("Mount = %v, %v", ok, err)
		}
		r.expect(t, 2, 13, 2)
	})
}

func TestRepositoryVanishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repos{there: map[string]bool{"a": true}}
		s := upstream.NewCreating(r, r)
		if err := s.PutBlob(t.Context(), upstream.Repo{Name: "a"}, upstream.Upload{}); err != nil {
			t.Fatal(err)
		}
		r.drop("a")
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if err := s.PutBlob(t.Context(), upstream.Repo{Name: "a"}, upstream.Upload{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		r.expect(t, 4, 5, 1) // all four were under way when it showed
	})
}

func TestCreationFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repos{there: map[string]bool{}, createErr: oci.ErrDenied.With("IAM says no")}
		s := upstream.NewCreating(r, r)
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if err := s.PutBlob(t.Context(), upstream.Repo{Name: "a"}, upstream.Upload{}); !errors.Is(err, oci.ErrDenied) {
					t.Errorf("got %v, want the refusal to create", err)
				}
			})
		}
		wg.Wait()
		r.expect(t, 1, 0, 1)
		r.createErr = nil
		if err := s.PutBlob(t.Context(), upstream.Repo{Name: "a"}, upstream.Upload{}); err != nil {
			t.Errorf("after the right was given: %v", err)
		}

		r.stubborn = true
		if err := s.PutBlob(t.Context(), upstream.Repo{Name: "b"}, upstream.Upload{}); !errors.Is(err, upstream.ErrRepositoryMissing) {
			t.Errorf("missing after creation: %v", err)
		}
		refused := r.refused
		if refused < 6 || refused > 9 {
			t.Errorf("%d refusals in the time that a write waits", refused)
		}
		// Others neither wait nor create as well, until the registry had every chance to find it.
		if err := s.PutBlob(t.Context(), upstream.Repo{Name: "b"}, upstream.Upload{}); !errors.Is(err, upstream.ErrRepositoryMissing) {
			t.Errorf("missing after creation: %v", err)
		}
		r.expect(t, refused+2, 1, 3)
		time.Sleep(30 * time.Second)
		r.stubborn = false
		if err := s.PutBlob(t.Context(), upstream.Repo{Name: "b"}, upstream.Upload{}); err != nil {
			t.Error(err)
		}
		r.expect(t, refused+3, 2, 4)
	})
}

// A registry that finds a repository some time after its creation costs one creation, and one write
// that asks again: the others wait for that.
func TestCreatedLater(t *testing.T) {
	for _, exists := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := &repos{there: map[string]bool{}, after: 5 * time.Second}
			if exists { // another mirror creates it at the same time
				time.AfterFunc(3*time.Second, func() { r.appear("new") })
				r.stubborn = true
			}
			s := upstream.NewCreating(r, r)
			began := time.Now()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					if err := s.PutBlob(t.Context(), upstream.Repo{Name: "new"}, upstream.Upload{}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if r.created != 1 || r.sent != 8 || r.refused > 6 {
				t.Errorf("%d created, %d sent, %d refused", r.created, r.sent, r.refused)
			}
			if d := time.Since(began); d > 21*time.Second {
				t.Errorf("the push took %v", d)
			}
		})
	}
}

// A client that leaves while the registry does not find the repository yet leaves the wait to the
// next one.
func TestCreatedLaterForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repos{there: map[string]bool{}, after: 6 * time.Second}
		s := upstream.NewCreating(r, r)
		gone, leave := context.WithTimeout(t.Context(), 4500*time.Millisecond)
		defer leave()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.PutBlob(gone, upstream.Repo{Name: "new"}, upstream.Upload{}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the client that left got %v", err)
			}
		})
		wg.Go(func() {
			time.Sleep(500 * time.Millisecond)
			if err := s.PutBlob(t.Context(), upstream.Repo{Name: "new"}, upstream.Upload{}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		if r.created != 1 || r.sent != 1 {
			t.Errorf("%d created, %d sent", r.created, r.sent)
		}
	})
}

func TestCreatingOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repos{there: map[string]bool{}}
		s := upstream.NewCreating(r, r)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.PutBlob(ctx, upstream.Repo{Name: "a"}, upstream.Upload{}) })
		time.Sleep(1500 * time.Millisecond) // creating
		wg.Go(func() {
			if err := s.PutBlob(t.Context(), upstream.Repo{Name: "a"}, upstream.Upload{}); err != nil {
				t.Error(err)
			}
		})
		impatient, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer stop()
		if err := s.PutBlob(impatient, upstream.Repo{Name: "a"}, upstream.Upload{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an impatient caller got %v", err)
		}
		cancel()
		wg.Wait()
		r.expect(t, 1, 2, 1)
	})
}

// A write that may not create its repository fails while the repository is missing, and asks once
// a minute. A write that may create it is not kept from doing so, and neither is one from finding
// it.
func TestExistingWritesCreateNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &repos{there: map[string]bool{}}
		s := upstream.NewCreating(r, r)
		put := func(existing bool) error {
			to := upstream.Repo{Name: "new"}.With(upstream.Call{Existing: existing})
			return s.PutBlob(t.Context(), to, upstream.Upload{})
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := put(true); !errors.Is(err, upstream.ErrRepositoryMissing) {
					t.Errorf("got %v, want that the repository is missing", err)
				}
			})
		}
		wg.Wait()
		if ok, err := s.Mount(t.Context(), upstream.Repo{Name: "new"}.With(upstream.Call{Existing: true}), "old", "d"); ok || !errors.Is(err, upstream.ErrRepositoryMissing) {
			t.Errorf("Mount = %v, %v", ok, err)
		}
		r.expect(t, 1, 0, 0)
		for range 2 { // the write after half a minute does not ask, and does not put off the next question
			time.Sleep(30 * time.Second)
			_ = put(true)
		}
		r.expect(t, 2, 0, 0)

		if err := put(false); err != nil {
			t.Error(err)
		}
		r.expect(t, 3, 1, 1)
		if err := put(true); err != nil {
			t.Errorf("after the repository was created: %v", err)
		}
		time.Sleep(30 * time.Second) // until a new repository would long have been found
		r.drop("new")
		if err := put(true); !errors.Is(err, upstream.ErrRepositoryMissing) {
			t.Errorf("after the repository has vanished: %v", err)
		}
		r.expect(t, 4, 2, 1)
	})
}
