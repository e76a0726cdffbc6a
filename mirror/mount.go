package mirror

import (
	"context"
	"sync"
	"time"

	"dray/cache/meta"
	"dray/mirror/identity"
	"dray/upstream"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
)

// A mount makes a blob of one repository visible in another one of the same registry, so that its bytes are not sent
// again. ECR does it where the account allows it, both repositories are encrypted alike, and a manifest of the source
// names the blob (ECR guide, "Blob mounting"); otherwise it answers 202 as to any upload. Whether a mount works is
// never guessed: the registry is asked, and an answer other than 201 costs one request.

const (
	// mountWithin bounds the attempt at a mount. It is an offer to save time: one that takes long is dropped for the upload.
	mountWithin = 10 * time.Second
	// mountPause is how long two repositories between which a mount was refused are left alone.
	mountPause = 10 * time.Minute
	// mountsRemembered bounds the pairs of repositories that are left alone.
	mountsRemembered = 4096
	// tryBytes is the largest blob whose way to the upstream waits for a mount that may be refused, where none has
	// succeeded lately.
	tryBytes = 8 << 20
)

// mounts remembers where mounts were refused and where they work. All of it may be lost.
type mounts struct {
	refused *lru.Cache[[3]string, time.Time] // by upstream, source and target
	mu      sync.Mutex                       // guards worked
	worked  map[string]time.Time             // newest success, by upstream
}

func newMounts() *mounts {
	refused, _ := lru.New[[3]string, time.Time](mountsRemembered) // fails for a size below one only
	return &mounts{refused: refused, worked: map[string]time.Time{}}
}

func (s *mounts) paused(pair [3]string) bool {
	at, ok := s.refused.Get(pair)
	return ok && time.Since(at) < mountPause
}

// reliable says that the upstream has mounted lately.
func (s *mounts) reliable(upstream string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.worked[upstream]
	return ok && time.Since(at) < mountPause
}

func (s *mounts) note(pair [3]string, ok bool) {
	if !ok {
		s.refused.Add(pair, time.Now())
		return
	}
	s.refused.Remove(pair)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.worked[pair[0]] = time.Now()
}

// mount answers 201 when the target has the blob, and otherwise leaves the client to upload it. Without a source, or
// where the client's does not serve, one that dray knows of is tried: but only if the client may pull from it, as it
// has shown nothing yet but the digest.
func (m *Mirror) mount(x *exchange) (bool, error) {
	ctx, repo, d := x.r.Context(), x.target.Repo, x.q.Mount
	if _, ok := m.present(ctx, x, d); ok {
		return true, x.created(d)
	}
	ctx, cancel := context.WithTimeout(ctx, mountWithin)
	defer cancel()
	tried := ""
	if x.q.From != "" {
		from, err := x.mountSource()
		if err != nil {
			return false, err
		}
		if from.Upstream == x.target.Upstream {
			if tried = from.Repo; m.mountFrom(ctx, x.up, repo, from.Repo, d) {
				return true, x.created(d)
			}
		}
	}
	from, ok := m.elsewhere(ctx, x.up, repo, d)
	if !ok || from == tried || !x.mayPull(from) || !m.mountFrom(ctx, x.up, repo, from, d) {
		return false, nil // the upload that follows will meet the same trouble, and say so
	}
	return true, x.created(d)
}

// mayPull reports whether the client may read another repository of the upstream that it writes to.
func (x *exchange) mayPull(repo string) bool {
	t, ok := x.listener.Routes.At(x.up.Name, repo)
	if !ok {
		return false
	}
	_, err := x.listener.Policy.Authorise(x.r, identity.Need{Action: identity.Pull, Repository: t.Name})
	return err == nil
}

// elsewhere finds another repository of the upstream that holds a blob under a manifest, and from which a mount has not
// just been refused.
func (m *Mirror) elsewhere(ctx context.Context, up *Upstream, repo string, d digest.Digest) (string, bool) {
	from, err := m.known.Home(ctx, up.Name, d)
	if err != nil || from == repo || m.mounts.paused([3]string{up.Name, from, repo}) {
		return "", false
	}
	return from, true
}

// mountFrom asks the upstream to mount a blob. The caller has made sure that the repository may have it.
func (m *Mirror) mountFrom(ctx context.Context, up *Upstream, repo, from string, d digest.Digest) bool {
	ok, err := up.Sink.Mount(ctx, up.remote(repo), up.remote(from).Name, d)
	if err != nil {
		m.log.Debug("mount failed", "upstream", up.Name, "repository", repo, "from", from, "error", err)
		m.metrics.mounts.WithLabelValues(up.Name, "failed").Inc()
		return false
	}
	m.mounts.note([3]string{up.Name, from, repo}, ok)
	if !ok {
		m.metrics.mounts.WithLabelValues(up.Name, "refused").Inc()
		return false
	}
	m.metrics.mounts.WithLabelValues(up.Name, "mounted").Inc()
	m.mounted(ctx, up, repo, d)
	return true
}

// mountKnown mounts a blob that the repository may have from wherever it is known to be.
func (m *Mirror) mountKnown(ctx context.Context, up *Upstream, repo string, d digest.Digest) bool {
	ctx, cancel := context.WithTimeout(ctx, mountWithin)
	defer cancel()
	from, ok := m.elsewhere(ctx, up, repo, d)
	return ok && m.mountFrom(ctx, up, repo, from, d)
}

// supply brings a blob that the repository may have to the upstream without the client: by a mount, or from the local
// copy.
func (m *Mirror) supply(ctx context.Context, how upstream.Call, up *Upstream, repo string, d digest.Digest, size int64) error {
	if m.mountKnown(ctx, up, repo, d) {
		return nil
	}
	return m.sendHeld(ctx, how, up, repo, d, size)
}

// awaitMount reports whether an upload of a blob whose digest is announced waits for the bytes, which prove that the
// client has them, to be spared by a mount. Where mounts may not work, a large one rather keeps pace with the client.
func (m *Mirror) awaitMount(ctx context.Context, up *Upstream, repo string, d digest.Digest, size int64) bool {
	if d == "" || !m.mounts.reliable(up.Name) && (size < 0 || size > tryBytes) {
		return false
	}
	_, ok := m.elsewhere(ctx, up, repo, d)
	return ok
}

// mounted records that the target has a blob of another repository. The client's next
// request may be a HEAD, to which a size belongs.
func (m *Mirror) mounted(ctx context.Context, up *Upstream, repo string, d digest.Digest) {
	size, held := m.cache.Stat(d)
	if !held {
		var err error
		if size, err = up.Source.StatBlob(ctx, up.remote(repo), d); err != nil {
			return // it is asked again when it matters
		}
	}
	m.recorded(m.absences.Forget(ctx, up.Name, repo, d))
	m.recorded(m.known.Add(ctx, up.Name, repo, meta.Holding{Digest: d, KnownFact: meta.KnownFact{Kind: meta.KindBlob, Size: size}}))
}
