package bolt_test

import (
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"dray/cache/meta"
	"dray/cache/meta/bolt"
	"dray/cache/meta/metatest"
)

func open(t *testing.T) meta.Store {
	s, err := bolt.Open(bolt.Options{Path: filepath.Join(t.TempDir(), "facts.db")})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSuite(t *testing.T) { metatest.Suite{Open: open}.Run(t) }

func TestSuiteFronted(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store {
		return meta.NewCached(open(t), meta.CachedOptions{})
	}}.Run(t)
}

// Entries that were written while the clock was ahead have expired once the clock is right.
func TestClockAhead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "facts.db")
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(70 * 365 * 24 * time.Hour) // from the year 2000 on
		s, err := bolt.Open(bolt.Options{Path: path})
		if err != nil {
			t.Fatal(err)
		}
		metatest.Put(t, s, "future", "v", time.Hour)
		metatest.Put(t, s, "for ever", "v", 0)
		if v, err := s.Get(t.Context(), "future"); err != nil || string(v) != "v" {
			t.Errorf("before: %q, %v", v, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
	s, err := bolt.Open(bolt.Options{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	metatest.Put(t, s, "long", "v", 2*meta.MaxTTL)
	if v, err := s.Get(t.Context(), "future"); !errors.Is(err, meta.ErrNotFound) {
		t.Errorf("from the future: %q, %v", v, err)
	}
	for _, key := range []string{"for ever", "long"} {
		if _, err := s.Get(t.Context(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if n, err := s.DeleteExpired(t.Context()); n != 1 || err != nil {
		t.Errorf("%d swept, %v", n, err)
	}
}
