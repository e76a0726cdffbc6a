package bolt_test

import (
	"path/filepath"
	"testing"

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
		return meta.NewFronted(open(t), meta.FrontOptions{})
	}}.Run(t)
}
