package meta_test

import (
	"testing"

	"go.uber.org/goleak"

	"dray/cache/meta"
	"dray/cache/meta/metatest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func memory(*testing.T) meta.Store { return metatest.NewMemory() }

func TestMemory(t *testing.T) { metatest.Suite{Open: memory}.Run(t) }

func TestFronted(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store {
		return meta.NewCached(memory(t), meta.CachedOptions{})
	}}.Run(t)
}

func TestFrontedTiny(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store {
		return meta.NewCached(memory(t), meta.CachedOptions{Entries: 2})
	}}.Run(t)
}

func TestGuarded(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store {
		return meta.NewGuarded(memory(t), meta.GuardOptions{})
	}}.Run(t)
}

func TestFrontedGuarded(t *testing.T) {
	metatest.Suite{Open: func(t *testing.T) meta.Store {
		return meta.NewCached(meta.NewGuarded(memory(t), meta.GuardOptions{}), meta.CachedOptions{})
	}}.Run(t)
}
