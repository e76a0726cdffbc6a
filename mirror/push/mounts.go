package push

import (
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"dray/mirror/repository"
)

// A mount makes a blob of one repository visible in another one of the same registry, so that its
// bytes are not sent again. ECR does it where the account allows it, both repositories are
// encrypted alike, and a manifest of the source names the blob (ECR guide, "Blob mounting");
// otherwise it answers 202 as to any upload. Whether a mount works is never guessed: the registry
// is asked, and an answer other than 201 costs one request.

const (
	// mountWithin bounds the attempt at a mount. It is an offer to save time: one that takes long
	// is dropped for the upload.
	mountWithin = 10 * time.Second
	// mountPause is how long two repositories between which a mount was refused are left alone.
	mountPause = 10 * time.Minute
	// mountsRemembered bounds the pairs of repositories that are left alone.
	mountsRemembered = 4096
	// tryBytes is the largest blob whose way to the upstream waits for a mount that may be refused,
	// where none has succeeded lately.
	tryBytes = 8 << 20
)

// pair is two repositories of one upstream, of which the second was to take a blob from the first.
type pair struct{ from, to repository.Repo }

// mounts remembers where mounts were refused and where they work. All of it may be lost.
type mounts struct {
	refused *lru.Cache[pair, time.Time]
	mu      sync.Mutex                         // guards worked
	worked  map[*repository.Upstream]time.Time // newest success
}

func newMounts() *mounts {
	refused, _ := lru.New[pair, time.Time](mountsRemembered) // fails for a size below one only
	return &mounts{refused: refused, worked: map[*repository.Upstream]time.Time{}}
}

func (s *mounts) paused(p pair) bool {
	at, ok := s.refused.Get(p)
	return ok && time.Since(at) < mountPause
}

// reliable says that the upstream has mounted lately.
func (s *mounts) reliable(up *repository.Upstream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, ok := s.worked[up]
	return ok && time.Since(at) < mountPause
}

// mountResult is how an attempt at a mount ended.
type mountResult string

const (
	mountDone    mountResult = "mounted"
	mountRefused mountResult = "refused"
	mountFailed  mountResult = "failed"
)

// note remembers how an attempt ended. A failure says nothing.
func (s *mounts) note(p pair, result mountResult) {
	switch result {
	case mountRefused:
		s.refused.Add(p, time.Now())
	case mountDone:
		s.refused.Remove(p)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.worked[p.to.Up] = time.Now()
	}
}
