package fleet

import (
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus"
)

// banFor is how long this member waits before it again asks a member that sent wrong bytes. It is
// also how long this member fetches a blob only from the registry after the blob had wrong bytes.
const banFor = 10 * time.Minute

// bans are the members and blobs whose bytes were wrong.
type bans struct {
	counter prometheus.Counter
	log     *slog.Logger

	mu     sync.Mutex                  // guards the fields below; leaf lock
	banned map[string]time.Time        // until when each member is banned
	alone  map[digest.Digest]time.Time // until when each blob is fetched only from the registry
}

// isAlone reports whether a blob must be fetched only from the registry.
func (b *bans) isAlone(d digest.Digest) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.alone[d])
}

// [bans.wrong] records that the bytes of a blob did not have its digest. members has the members
// that sent bytes. complete says that these members sent every byte. If a single member sent every
// byte, [bans.wrong] bans that member.
func (b *bans) wrong(d digest.Digest, members []string, complete bool) {
	until := time.Now().Add(banFor)
	b.mu.Lock()
	forget(b.alone)
	b.alone[d] = until
	ban := complete && len(members) == 1
	if ban {
		forget(b.banned)
		b.banned[members[0]] = until
	}
	b.mu.Unlock()
	if ban {
		b.counter.Inc()
		b.log.Error("a member of the fleet sent wrong bytes, so dray does not read from it for ten minutes; check its disk and memory", "member", members[0], "digest", d)
		return
	}
	b.log.Warn("bytes of a blob were wrong, and some came from other members; dray requests the whole blob from the registry", "digest", d)
}

// maxRemembered bounds the entries of the map banned, and also the entries of the map alone.
const maxRemembered = 1024

// forget makes room for one more entry. It removes all entries whose time has passed and, if m is
// still full, one arbitrary entry.
func forget[K comparable](m map[K]time.Time) {
	for k, until := range m {
		if time.Now().After(until) {
			delete(m, k)
		}
	}
	for k := range m {
		if len(m) < maxRemembered {
			return
		}
		delete(m, k)
	}
}

func (b *bans) isBanned(member string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return time.Now().Before(b.banned[member])
}
