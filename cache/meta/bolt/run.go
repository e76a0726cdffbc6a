package bolt

import (
	"context"
	"time"

	"go.etcd.io/bbolt"
)

// Run syncs the file and removes expired entries until ctx ends. It then returns nil. If several
// syncs in a row fail, Run logs only the first failure. The same holds for removals.
func (s *Store) Run(ctx context.Context) error {
	syncs, sweeps := time.NewTicker(s.o.SyncEvery), time.NewTicker(s.o.ExpireEvery)
	defer syncs.Stop()
	defer sweeps.Stop()
	failing := map[string]bool{}
	note := func(work string, err error) {
		if err != nil && !failing[work] && ctx.Err() == nil {
			s.o.Logger.Warn("metadata file maintenance failed", "path", s.o.Path, "work", work, "error", err)
		}
		failing[work] = err != nil
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-syncs.C:
			note("sync", s.sync())
		case <-sweeps.C:
			_, err := s.DeleteExpired(ctx)
			note("sweep", err)
		}
	}
}

func (s *Store) sync() error {
	f := s.file.Load()
	if f == nil || !s.dirty.Swap(false) {
		return nil
	}
	if err := translate(f.contain((*bbolt.DB).Sync)); err != nil {
		s.dirty.Store(true)
		return err
	}
	return nil
}

// DeleteExpired removes expired entries and returns their number.
func (s *Store) DeleteExpired(ctx context.Context) (int, error) {
	removed := 0
	for from, more := "", true; more; {
		var keys []string
		err := s.view(ctx, func(b *bbolt.Bucket) error {
			keys, from, more = expiredPage(b, from)
			return nil
		})
		if err != nil {
			return removed, err
		}
		if len(keys) == 0 {
			continue
		}
		n := 0
		err = s.update(ctx, func(b *bbolt.Bucket) (err error) {
			n, err = removeExpired(b, keys)
			return err
		})
		if err != nil {
			return removed, err
		}
		removed += n
		s.swept.Add(float64(n))
	}
	return removed, nil
}

// expiredPage returns the expired keys of the page that begins at startKey. It also returns the key
// at which the next page begins, and whether there is a next page.
func expiredPage(b *bbolt.Bucket, startKey string) (keys []string, next string, more bool) {
	now := time.Now().UnixNano()
	visited := 0
	c := b.Cursor()
	for k, v := c.Seek([]byte(startKey)); k != nil; k, v = c.Next() {
		if visited >= 16*pageEntries || len(keys) >= pageEntries {
			return keys, string(k), true
		}
		visited++
		if expired(v, now) {
			keys = append(keys, string(k))
		}
	}
	return keys, "", false
}

// removeExpired removes the keys that are still expired, and returns their number. It checks the
// expiry again, because a caller may have put the key again.
func removeExpired(b *bbolt.Bucket, keys []string) (n int, err error) {
	now := time.Now().UnixNano()
	for _, k := range keys {
		v := b.Get([]byte(k))
		if v == nil || !expired(v, now) {
			continue
		}
		if err := b.Delete([]byte(k)); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
