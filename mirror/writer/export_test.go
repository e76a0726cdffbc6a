package writer

import (
	"context"
	"time"

	"dray/cache/fleet"
	"dray/mirror/repository"
)

// Forget makes the member forget which repositories it works on.
func (w *Writers) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.held)
}

// Claim makes the member the writer of a repository, as a request does.
func (w *Writers) Claim(upstream, repo string) {
	if at := w.find(context.Background(), key{w.o.Identity(upstream), repo}, fleet.Lease{}); at.done != nil {
		at.done()
	}
}

// Remember makes the member take another one for the writer of a repository.
func (w *Writers) Remember(upstream, repo string, m fleet.Member) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[key{w.o.Identity(upstream), repo}] = sighting{fleet.Lease{Holder: m.ID, Address: m.Address}, time.Now()}
}

// Renew renews the leases, as Run does.
func (w *Writers) Renew(ctx context.Context) { w.renew(ctx) }

// Unfinished names the repositories for which something is open.
func (w *Writers) Unfinished(see func(repository.Repo)) { w.o.Unfinished(see) }
