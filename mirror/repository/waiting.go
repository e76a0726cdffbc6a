package repository

import (
	"container/list"
	"io"
	"slices"
	"sync"
	"time"

	"dray/upstream/oci"
)

// maxWaiting and maxWaitingClient bound the bytes of the waiting manifests, for all clients
// together and for each client. Above a bound, the oldest manifests are dropped. A client above its
// own bound loses only its own manifests.
const (
	maxWaiting       = 128 << 20
	maxWaitingClient = maxWaiting / 4
	// waitingOverhead is added to the bytes of each manifest, because each entry also takes memory.
	waitingOverhead = 2 << 10
)

// waiting is a manifest that was pushed by digest and passed its checks. It is forwarded together
// with the manifest that it waits for.
type waiting struct {
	key   Key
	man   *oci.Manifest
	owner string // the client that pushed it last
	until time.Time
	kept  io.Closer // its copy for the next process; nil if there is none
	// allElem and ownElem are the manifest's elements in Waiting.all and in the list of its owner.
	allElem, ownElem *list.Element
}

func (w *waiting) bytes() int64 { return int64(len(w.man.Raw)) + waitingOverhead }

// subject returns the key of the manifest's subject, or the zero key.
func (w *waiting) subject() Key {
	if w.man.Subject == nil {
		return Key{}
	}
	return w.key.Repo.Key(w.man.Subject.Digest)
}

// arrivals is a list of the waiting manifests of all clients, or of one client, oldest first.
type arrivals struct {
	order list.List // of *waiting
	bytes int64
}

// Waiting is the table of the manifests that passed their checks and wait for a manifest that
// refers to them. A referrer waits for its subject instead. The table is in memory. A manifest may
// have a copy for the next process. When a manifest is removed for good, Waiting closes its copy,
// so that the next process does not find it.
type Waiting struct {
	maxBytes, maxClientBytes int64

	mu        sync.Mutex // guards the fields below; never held during I/O
	byKey     map[Key]*waiting
	bySubject map[Key][]*waiting // oldest first
	all       arrivals
	byOwner   map[string]*arrivals
	gone      []io.Closer // copies of removed manifests; the method unlock closes them
}

func newWaiting(maxBytes, maxClientBytes int64) *Waiting {
	return &Waiting{maxBytes: maxBytes, maxClientBytes: maxClientBytes, byKey: map[Key]*waiting{}, bySubject: map[Key][]*waiting{}, byOwner: map[string]*arrivals{}}
}

// unlock unlocks mu, and closes the copies of removed manifests.
func (b *Waiting) unlock() {
	gone := b.gone
	b.gone = nil
	b.mu.Unlock()
	for _, kept := range gone {
		_ = kept.Close() // if this fails, the next process drops the copy once it has expired
	}
}

// Get returns the waiting manifest with a key, or nil.
func (b *Waiting) Get(k Key) *oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.byKey[k]; w != nil {
		return w.man
	}
	return nil
}

// Repositories calls the function visit with the repository of each manifest.
func (b *Waiting) Repositories(visit func(Repo)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k := range b.byKey {
		visit(k.Repo)
	}
}

// Len returns the number of manifests.
func (b *Waiting) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.byKey)
}

// Add lets a manifest wait until the given time. It replaces a manifest with the same key, and
// drops the oldest manifests above the bounds. backup is the copy of the manifest for the next
// process, or nil.
func (b *Waiting) Add(k Key, man *oci.Manifest, owner string, until time.Time, backup io.Closer) {
	b.mu.Lock()
	defer b.unlock()
	b.drop(b.byKey[k])
	b.add(&waiting{key: k, man: man, owner: owner, until: until, kept: backup})
}

// add is Add for a manifest whose key is not in the table. The caller holds mu.
func (b *Waiting) add(w *waiting) {
	own := b.byOwner[w.owner]
	if own == nil {
		own = &arrivals{}
		b.byOwner[w.owner] = own
	}
	b.byKey[w.key] = w
	w.allElem, w.ownElem = b.all.order.PushBack(w), own.order.PushBack(w)
	if subject := w.subject(); subject != (Key{}) {
		b.bySubject[subject] = append(b.bySubject[subject], w)
	}
	b.all.bytes += w.bytes()
	own.bytes += w.bytes()
	for own.bytes > b.maxClientBytes {
		b.drop(own.order.Front().Value.(*waiting))
	}
	for b.all.bytes > b.maxBytes {
		b.drop(b.all.order.Front().Value.(*waiting))
	}
}

// drop removes a manifest, and leaves its copy to unlock. The caller holds mu, and afterwards calls
// unlock, which closes the copy. w may be nil.
func (b *Waiting) drop(w *waiting) {
	b.remove(w)
	if w != nil && w.kept != nil {
		b.gone = append(b.gone, w.kept)
	}
}

// remove removes a manifest, and leaves its copy open. The caller holds mu. w may be nil.
func (b *Waiting) remove(w *waiting) {
	if w == nil {
		return
	}
	own := b.byOwner[w.owner]
	delete(b.byKey, w.key)
	b.all.order.Remove(w.allElem)
	own.order.Remove(w.ownElem)
	b.all.bytes -= w.bytes()
	own.bytes -= w.bytes()
	if own.order.Len() == 0 {
		delete(b.byOwner, w.owner)
	}
	subject := w.subject()
	if left := slices.DeleteFunc(b.bySubject[subject], func(o *waiting) bool { return o == w }); len(left) > 0 {
		b.bySubject[subject] = left
	} else {
		delete(b.bySubject, subject)
	}
}

// Drop removes a manifest and reports whether it waited.
func (b *Waiting) Drop(k Key) bool {
	waited, end := b.Withdraw(k)
	end(false)
	return waited
}

// Withdraw removes a manifest, and reports whether it waited. The caller must call finish.
// finish(true) puts the manifest back, unless Add has added one with this key after Withdraw. In
// all other cases, finish closes the copy of the manifest.
func (b *Waiting) Withdraw(k Key) (waited bool, finish func(back bool)) {
	b.mu.Lock()
	defer b.unlock()
	w := b.byKey[k]
	b.remove(w)
	return w != nil, func(back bool) {
		b.mu.Lock()
		defer b.unlock()
		switch {
		case w == nil:
		case back && b.byKey[k] == nil:
			b.add(w)
		case w.kept != nil:
			b.gone = append(b.gone, w.kept)
		}
	}
}

// Expire removes the manifests whose time is over.
func (b *Waiting) Expire(now time.Time) {
	b.mu.Lock()
	defer b.unlock()
	for _, w := range b.byKey {
		if now.After(w.until) {
			b.drop(w)
		}
	}
}

// Referrers returns the waiting manifests whose subject has the key k, oldest first.
func (b *Waiting) Referrers(k Key) []*oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*oci.Manifest
	for _, w := range b.bySubject[k] {
		out = append(out, w.man)
	}
	return out
}
