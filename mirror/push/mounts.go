package push

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"dray/mirror/repository"
)

// A mount makes a blob of one repository available in another repository of the same registry, so
// that its bytes are not sent again. ECR mounts a blob if the account allows it, both repositories
// are encrypted alike, and a manifest of the source names the blob (ECR guide, "Blob mounting").
// Otherwise ECR answers 202, as if the client had started an upload. dray does not guess whether a
// mount will work, but tries it. A mount that fails costs one request. After a refusal, dray pauses
// (mountPause).

const (
	// mountWithin bounds an attempt to mount. A mount only saves time, so dray gives up a slow mount
	// and sends the blob.
	mountWithin = 10 * time.Second
	// mountPause is the pause after a refusal: for this time, dray tries to mount between the same two
	// repositories only if a client names the source. For the same time after a success,
	// mounts.reliable returns true.
	mountPause = 10 * time.Minute
	// maxRefused bounds the number of pairs in mounts.refused.
	maxRefused = 4096
	// mountFirstBytes is a size in bytes. If mounts.reliable returns false for an upstream, only blobs
	// of at most this size wait for an attempt to mount. Blobs that are larger or of unknown size are
	// sent at once.
	mountFirstBytes = 8 << 20
)

// pair is two repositories of one upstream: the source and the target of a mount.
type pair struct{ from, to repository.Repo }

// mounts remembers where mounts were refused and where they worked. Any of these records may be
// lost.
type mounts struct {
	refused     *lru.Cache[pair, time.Time]
	mu          sync.Mutex           // guards lastMounted
	lastMounted map[string]time.Time // the time of the newest success, by upstream
}

func newMounts() *mounts {
	refused, _ := lru.New[pair, time.Time](maxRefused) // fails only for a size below 1
	return &mounts{refused: refused, lastMounted: map[string]time.Time{}}
}

func (s *mounts) paused(p pair) bool {
	at, ok := s.refused.Get(p)
	return ok && time.Since(at) < mountPause
}

// reliable reports whether the upstream has mounted a blob less than mountPause ago.
func (s *mounts) reliable(up *repository.Upstream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.lastMounted[up.Name]
	return ok && time.Since(at) < mountPause
}

// mountResult is the result of an attempt to mount, as a label of dray_mounts_total.
type mountResult string

const (
	mountDone    mountResult = "mounted"
	mountRefused mountResult = "refused"
	mountFailed  mountResult = "failed"
)

// note records the result of an attempt. It ignores mountFailed, because the next attempt may
// succeed.
func (s *mounts) note(p pair, result mountResult) {
	switch result {
	case mountRefused:
		s.refused.Add(p, time.Now())
	case mountDone:
		s.refused.Remove(p)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lastMounted[p.to.Up.Name] = time.Now()
	}
}
