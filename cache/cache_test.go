package cache_test

import (
	"testing"

	"go.uber.org/goleak"

	"dray/cache"
	"dray/cache/cachetest"
	"dray/cache/disk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReads(t *testing.T) {
	cachetest.TestReads(t, func(t *testing.T) *cache.Cache {
		c, _ := cachetest.Start(t, cache.Options{}, disk.Options{})
		return c
	})
}
