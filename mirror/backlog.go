package mirror

import (
	"container/list"
	"context"
	"slices"
	"sync"
	"time"

	"dray/mirror/identity"
	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// Bounds of the manifests that wait, in bytes, for all clients and for each. Beyond them the oldest go first: a client beyond its own loses
// none but its own.
const (
	maxBacklog       = 128 << 20
	maxBacklogClient = maxBacklog / 4
	// waitingCosts is what a manifest counts for beside its own bytes, because small ones take memory as well.
	waitingCosts = 2 << 10
)

// waiting is a manifest that passed and was pushed by digest: it lands with the one that refers to it.
type waiting struct {
	key   pinKey
	man   *oci.Manifest
	owner string // who pushed it last
	until time.Time
	// inAll and inOwn are its places in the two orders.
	inAll, inOwn *list.Element
}

func (w *waiting) bytes() int64 { return int64(len(w.man.Raw)) + waitingCosts }

// subject is what the manifest describes, or the zero key.
func (w *waiting) subject() pinKey {
	if w.man.Subject == nil {
		return pinKey{}
	}
	return pinKey{w.key.upstream, w.key.repo, w.man.Subject.Digest}
}

// arrivals are manifests in the order in which they came, of all clients or of one.
type arrivals struct {
	order list.List // of *waiting
	bytes int64
}

// backlog are the manifests that passed, and that nothing which passed refers to yet. They live in this process: a client
// whose manifests are gone after a restart is told so, and pushes them again.
type backlog struct {
	most, mostClient int64 // bytes

	mu        sync.Mutex // guards what follows; never held during I/O
	m         map[pinKey]*waiting
	bySubject map[pinKey][]*waiting // in the order in which they came
	all       arrivals
	of        map[string]*arrivals // by owner
}

func newBacklog(most, mostClient int64) *backlog {
	return &backlog{most: most, mostClient: mostClient, m: map[pinKey]*waiting{}, bySubject: map[pinKey][]*waiting{}, of: map[string]*arrivals{}}
}

func (b *backlog) get(k pinKey) *oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	if w := b.m[k]; w != nil {
		return w.man
	}
	return nil
}

func (b *backlog) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.m)
}

func (b *backlog) add(k pinKey, man *oci.Manifest, owner string, until time.Time) {
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
	if about := w.subject(); about != (pinKey{}) {
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
func (b *backlog) remove(w *waiting) {
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

// drop reports whether a manifest waited that waits no longer.
func (b *backlog) drop(k pinKey) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := b.m[k]
	b.remove(w)
	return w != nil
}

func (b *backlog) expire(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range b.m {
		if now.After(w.until) {
			b.remove(w)
		}
	}
}

// about lists the manifests that wait for the one of a digest, because they describe it.
func (b *backlog) about(k pinKey) []*oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*oci.Manifest
	for _, w := range b.bySubject[k] {
		out = append(out, w.man)
	}
	return out
}

// waits reports whether a manifest that passed is to wait for one that refers to it, or for the one that it describes.
// What describes an image that is there lands at once: nothing will ever refer to it. BuildKit pushes what describes an image before it.
func (m *Mirror) waits(ctx context.Context, g *Gate, up *Upstream, repo string, ref oci.Reference, man *oci.Manifest) (bool, error) {
	if g == nil || g.ForwardDigests || ref.Tag != "" {
		return false, nil
	}
	if man.Subject != nil {
		there, err := m.lies(ctx, up, repo, man.Subject.Digest)
		return !there, err
	}
	_, err := m.known.Get(ctx, up.Name, repo, man.Digest)
	return err != nil, nil
}

// lies reports whether a manifest has landed: it is served from here, or the upstream has it. What was acknowledged will.
func (m *Mirror) lies(ctx context.Context, up *Upstream, repo string, d digest.Digest) (bool, error) {
	if m.backlog.get(pinKey{up.Name, repo, d}) != nil {
		return false, nil
	}
	if _, queued := m.queue.Find(up.Name, repo, d.String()); queued || m.held(ctx, up, repo, d) != nil {
		return true, nil
	}
	_, err := up.Source.StatManifest(ctx, up.remote(repo), oci.Reference{Digest: d}, anyManifest)
	if oci.NotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// defaultHold is how long manifests wait, where nothing is said.
const defaultHold = time.Hour

func (m *Mirror) holdBack(p plea) upstream.Pushed {
	hold := p.gate.HoldFor
	if hold <= 0 {
		hold = defaultHold
	}
	m.backlog.add(pinKey{p.up.Name, p.repo, p.man.Digest}, p.man, p.owner, time.Now().Add(hold))
	return upstream.Pushed{}
}

// landWaiting lands a manifest that waited, if it did, and afterwards what describes it.
func (m *Mirror) landWaiting(ctx context.Context, how upstream.Call, up *Upstream, repo string, d digest.Digest) error {
	k := pinKey{up.Name, repo, d}
	man := m.backlog.get(k)
	if man == nil {
		return nil
	}
	_, err := m.land(ctx, how, up, repo, oci.Reference{Digest: d}, man)
	return err
}

// landAbout lands what waited for a manifest because it describes it.
func (m *Mirror) landAbout(ctx context.Context, how upstream.Call, up *Upstream, repo string, d digest.Digest) error {
	k := pinKey{up.Name, repo, d}
	m.backlog.drop(k)
	for _, man := range m.backlog.about(k) {
		if err := m.landWaiting(ctx, how, up, repo, man.Digest); err != nil {
			return err
		}
	}
	return nil
}

// waitingAnswer is a manifest that waits, for clients of the push that brought it.
func (m *Mirror) waitingAnswer(x *exchange) *answer {
	if x.listener.Policy.Role != identity.RoleRegistry || x.q.Ref.Digest == "" {
		return nil
	}
	man := m.backlog.get(pinKey{x.up.Name, x.target.Repo, x.q.Ref.Digest})
	if man == nil {
		return nil
	}
	a := answerOf(man)
	a.source = fromCache
	return a
}
