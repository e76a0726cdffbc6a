package mirror

import (
	"context"
	"sync"
	"time"

	"dray/upstream"
	"dray/upstream/oci"

	"github.com/opencontainers/go-digest"
)

// maxBacklog bounds the manifests that wait, in bytes. The oldest go first.
const maxBacklog = 128 << 20

// waiting is a manifest that passed and was pushed by digest: it lands with the one that refers to it.
type waiting struct {
	man   *oci.Manifest
	since time.Time
	until time.Time
}

// backlog are the manifests that passed, and that nothing which passed refers to yet. They live in this process: a client
// whose manifests are gone after a restart is told so, and pushes them again.
type backlog struct {
	mu    sync.Mutex // guards what follows; never held during I/O
	bytes int64
	m     map[pinKey]waiting
}

func newBacklog() *backlog { return &backlog{m: map[pinKey]waiting{}} }

func (b *backlog) get(k pinKey) *oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.m[k].man
}

func (b *backlog) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.m)
}

func (b *backlog) add(k pinKey, man *oci.Manifest, now, until time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(k)
	b.m[k] = waiting{man, now, until}
	for b.bytes += int64(len(man.Raw)); b.bytes > maxBacklog; {
		oldest := k
		for other, w := range b.m {
			if w.since.Before(b.m[oldest].since) {
				oldest = other
			}
		}
		b.remove(oldest)
	}
}

// remove needs mu.
func (b *backlog) remove(k pinKey) {
	if w, ok := b.m[k]; ok {
		b.bytes -= int64(len(w.man.Raw))
		delete(b.m, k)
	}
}

func (b *backlog) drop(k pinKey) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(k)
}

func (b *backlog) expire(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for k, w := range b.m {
		if now.After(w.until) {
			b.remove(k)
		}
	}
}

// about lists the manifests that wait for the one of a digest, because they describe it.
func (b *backlog) about(k pinKey) []*oci.Manifest {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []*oci.Manifest
	for other, w := range b.m {
		if other.upstream == k.upstream && other.repo == k.repo && w.man.Subject != nil && w.man.Subject.Digest == k.digest {
			out = append(out, w.man)
		}
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

func (m *Mirror) holdBack(g *Gate, up *Upstream, repo string, man *oci.Manifest) upstream.Pushed {
	hold := g.HoldFor
	if hold <= 0 {
		hold = defaultHold
	}
	now := time.Now()
	m.backlog.add(pinKey{up.Name, repo, man.Digest}, man, now, now.Add(hold))
	return upstream.Pushed{}
}

// landWaiting lands a manifest that waited, if it did, and afterwards what describes it.
func (m *Mirror) landWaiting(ctx context.Context, up *Upstream, repo string, d digest.Digest) error {
	k := pinKey{up.Name, repo, d}
	man := m.backlog.get(k)
	if man == nil {
		return nil
	}
	if _, err := m.land(ctx, up, repo, oci.Reference{Digest: d}, man); err != nil {
		return err
	}
	return nil
}

// landAbout lands what waited for a manifest because it describes it.
func (m *Mirror) landAbout(ctx context.Context, up *Upstream, repo string, d digest.Digest) error {
	k := pinKey{up.Name, repo, d}
	m.backlog.drop(k)
	for _, man := range m.backlog.about(k) {
		if err := m.landWaiting(ctx, up, repo, man.Digest); err != nil {
			return err
		}
	}
	return nil
}

// waitingAnswer is a manifest that waits, for clients of the push that brought it.
func (m *Mirror) waitingAnswer(x *exchange) *answer {
	if x.listener.Role != RoleRegistry || x.q.Ref.Digest == "" {
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
