package repository

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"dray/upstream/oci"
)

// Bounds of the manifests that wait, in bytes, for all clients and for each. Beyond them the
// oldest go first: a client beyond its own loses none but its own.
const (
	maxWaiting       = 128 << 20
	maxWaitingClient = maxWaiting / 4
	// waitingCosts is what a manifest counts for beside its own bytes, because small ones take
	// memory as well.
	waitingCosts = 2 << 10
)

// waiting is a manifest that passed its checks and was pushed by digest: it is forwarded with the
// one that refers to it.
type waiting struct {
	key   Key
	man   *oci.Manifest
	owner string // the client that pushed it last
	until time.Time
	// inAll and inOwn are its places in the two orders.
	inAll, inOwn *list.Element
}

func (w *waiting) bytes() int64 { return int64(len(w.man.Raw)) + waitingCosts }

// subject is what the manifest describes, or the zero key.
func (w *waiting) subject() Key {
	if w.man.Subject == nil {
		return Key{}
	}
	return w.key.Repo.Key(w.man.Subject.Digest)
}

// arrivals are manifests in the order in which they came, of all clients or of one.
type arrivals struct {
	order list.List // of *waiting
	bytes int64
}

// Waiting is the table of the manifests that passed their checks, and that nothing which passed
// refers to yet. They live in this process: a client whose manifests are gone after a restart is
// told so, and pushes them again.
type Waiting struct {
	most, mostClient int64 // bytes

	mu        sync.Mutex // guards what follows; never held during I/O
	m         map[Key]*waiting
	bySubject map[Key][]*waiting // in the order in which they came
	all       arrivals
	of        map[string]*arrivals // by owner
}

func newWaiting(most, mostClient int64) *Waiting {
	return &Waiting{most: most, mostClient: mostClient, m: map[Key]*waiting{}, bySubject: map[Key][]*waiting{}, of: map[string]*arrivals{}}
}

// Get returns the manifest that waits, or nil.
func (b *Waiting) Get(k Key) *oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.m[k]; w != nil {
		return w.man
	}
	return nil
}

// Len returns the number of manifests that wait.
func (b *Waiting) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.m)
}

// Add has a manifest wait until a time, in place of an earlier one of the same key.
func (b *Waiting) Add(k Key, man *oci.Manifest, owner string, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(b.m[k])
	w := &waiting{key: k, man: man, owner: owner, until: until}
	own := b.of[owner]
	if own == nil {
		own = &arrivals{}
		b.of[owner] = own
	}
	b.m[k] = w
	w.inAll, w.inOwn = b.all.order.PushBack(w), own.order.PushBack(w)
	if about := w.subject(); about != (Key{}) {
		b.bySubject[about] = append(b.bySubject[about], w)
	}
	b.all.bytes += w.bytes()
	own.bytes += w.bytes()
	for own.bytes > b.mostClient {
		b.remove(own.order.Front().Value.(*waiting))
	}
	for b.all.bytes > b.most {
		b.remove(b.all.order.Front().Value.(*waiting))
	}
}

// remove needs mu.
func (b *Waiting) remove(w *waiting) {
	if w == nil {
		return
	}
	own := b.of[w.owner]
	delete(b.m, w.key)
	b.all.order.Remove(w.inAll)
	own.order.Remove(w.inOwn)
	b.all.bytes -= w.bytes()
	own.bytes -= w.bytes()
	if own.order.Len() == 0 {
		delete(b.of, w.owner)
	}
	about := w.subject()
	if left := slices.DeleteFunc(b.bySubject[about], func(o *waiting) bool { return o == w }); len(left) > 0 {
		b.bySubject[about] = left
	} else {
		delete(b.bySubject, about)
	}
}

// Drop reports whether a manifest waited that waits no longer.
func (b *Waiting) Drop(k Key) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.m[k]
	b.remove(w)
	return w != nil
}

// Expire drops the manifests whose time is over.
func (b *Waiting) Expire(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.m {
		if now.After(w.until) {
			b.remove(w)
		}
	}
}

// About lists the manifests that wait for the one of a digest, because they describe it.
func (b *Waiting) About(k Key) []*oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*oci.Manifest
	for _, w := range b.bySubject[k] {
		out = append(out, w.man)
	}
	return out
}
