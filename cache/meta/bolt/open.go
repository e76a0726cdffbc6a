package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	openSuffix    = ".open"
	corruptSuffix = ".corrupt"
)

// openSound returns a database that is known to be sound, if need be a new one.
func openSound(path string, lockTimeout time.Duration, log *slog.Logger) (*bbolt.DB, error) {
	db, err := openChecked(path, lockTimeout)
	if errors.Is(err, ErrCorrupt) {
		log.Warn("metadata file is damaged, starting with an empty one",
			"path", path, "moved", path+corruptSuffix, "error", err)
		if err := os.Rename(path, path+corruptSuffix); err != nil {
			return nil, err
		}
		db, err = openChecked(path, lockTimeout)
	}
	if err != nil {
		return nil, err
	}
	if err := mark(path); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// openChecked opens the file, and checks it unless it was closed in order.
func openChecked(path string, lockTimeout time.Duration) (db *bbolt.DB, err error) {
	err = contain(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout:      lockTimeout,
			NoSync:       true,
			NoGrowSync:   true,
			FreelistType: bbolt.FreelistMapType,
			NoStatistics: true,
		})
		return err
	})
	if err != nil {
		return nil, classify(err)
	}
	_, err = os.Stat(path + openSuffix)
	used := !errors.Is(err, fs.ErrNotExist)
	err = contain(func() error {
		if err := fits(db, path); err != nil {
			return err
		}
		if err := db.Update(func(tx *bbolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte(facts))
			return err
		}); err != nil || !used {
			return err
		}
		return db.View(verify)
	})
	if err != nil {
		return nil, errors.Join(classify(err), contain(db.Close))
	}
	return db, nil
}

// classify sorts out what moving the file aside would not mend.
func classify(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, ErrCorrupt):
		return err
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum),
		errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrInvalidMapping),
		errors.Is(err, berrors.ErrIncompatibleValue):
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// fits refuses a file shorter than its own header says: pages beyond its end
// cannot even be looked at.
func fits(db *bbolt.DB, path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: %d of %d bytes", ErrCorrupt, info.Size(), tx.Size())
		}
		return nil
	})
}

// verify reads everything. The walk comes first, in this goroutine, where a
// fault can be contained: Check follows the same pages in one of its own.
func verify(tx *bbolt.Tx) error {
	var last []byte
	c := tx.Bucket([]byte(facts)).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if last != nil && string(k) <= string(last) {
			return fmt.Errorf("%w: keys out of order", ErrCorrupt)
		}
		if len(v) < expirySize {
			return fmt.Errorf("%w: value without expiry", ErrCorrupt)
		}
		last = append(last[:0], k...)
	}
	var first error
	for err := range tx.Check() { // to its end: the sender does not give up
		if first == nil {
			first = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return first
}

// mark leaves the marker of a file in use, durably, before the first write.
func mark(path string) error {
	f, err := os.OpenFile(path+openSuffix, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close(), syncDir(path))
}

func removeMarker(path string) error {
	if err := os.Remove(path + openSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(path)
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Run syncs and sweeps until ctx ends, and returns nil then. A sync or sweep that
// fails is logged once until one succeeds again.
func (s *Store) Run(ctx context.Context) error {
	syncs, sweeps := time.NewTicker(s.syncEvery), time.NewTicker(s.sweepEvery)
	defer syncs.Stop()
	defer sweeps.Stop()
	failing := map[string]bool{}
	note := func(work string, err error) {
		if err != nil && !failing[work] && ctx.Err() == nil {
			s.log.Warn("metadata file", "path", s.path, "work", work, "error", err)
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
			_, err := s.Sweep(ctx)
			note("sweep", err)
		}
	}
}

func (s *Store) sync() error {
	if !s.dirty.Swap(false) {
		return nil
	}
	if err := translate(contain(s.db.Sync)); err != nil {
		s.dirty.Store(true)
		return err
	}
	return nil
}

// Sweep removes the entries that have expired and returns their number.
func (s *Store) Sweep(ctx context.Context) (int, error) {
	removed := 0
	for from, more := "", true; more; {
		var doomed []string
		err := s.view(ctx, func(b *bbolt.Bucket) error {
			doomed, from, more = expiredPage(b, from)
			return nil
		})
		if err != nil {
			return removed, err
		}
		if len(doomed) == 0 {
			continue
		}
		n := 0
		err = s.update(ctx, func(b *bbolt.Bucket) (err error) {
			n, err = removeExpired(b, doomed)
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

// expiredPage returns the expired keys of a page, and where the next one begins.
func expiredPage(b *bbolt.Bucket, from string) (doomed []string, next string, more bool) {
	now := time.Now().UnixNano()
	visited := 0
	c := b.Cursor()
	for k, v := c.Seek([]byte(from)); k != nil; k, v = c.Next() {
		if visited >= 16*pageEntries || len(doomed) >= pageEntries {
			return doomed, string(k), true
		}
		visited++
		if expired(v, now) {
			doomed = append(doomed, string(k))
		}
	}
	return doomed, "", false
}

// removeExpired looks again, for a key may have been put anew meanwhile.
func removeExpired(b *bbolt.Bucket, doomed []string) (n int, err error) {
	now := time.Now().UnixNano()
	for _, k := range doomed {
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
