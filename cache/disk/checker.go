package disk

import (
	"context"
	"errors"
	"io/fs"
)

// checker verifies suspect blobs, which an unclean stop may have left incomplete or corrupt.
type checker struct {
	*resources
	evictor *evictor
	sync    *syncer
}

// run verifies the blobs that are suspect when it begins, one after the other, and drops the
// corrupt ones.
func (c *checker) run(ctx context.Context) {
	c.mu.RLock()
	var all []*entry
	for e := range c.suspects {
		all = append(all, e)
	}
	c.mu.RUnlock()
	for _, e := range all {
		c.mu.Lock()
		c.refInternal(e)
		c.mu.Unlock()
		err := c.verify(ctx, e, e.path())
		c.unrefInternal(e)
		if ctx.Err() != nil {
			return
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			c.log.Error("cannot verify blob", "digest", e.digest(), "error", err)
		}
	}
}

// verify reads the file of a suspect entry, to which the caller holds a reference. If the file is
// intact, the entry is no longer suspect. If the file is corrupt or missing, verify drops the entry
// and returns ErrNotFound.
func (c *checker) verify(ctx context.Context, e *entry, name string) error {
	if err := c.takeName(ctx, e.digest()); err != nil {
		return err
	}
	c.mu.RLock()
	suspect, gone := e.suspect, e.gone
	c.mu.RUnlock()
	if gone || !suspect {
		c.freeName(e.digest())
		if gone {
			return ErrNotFound
		}
		return nil
	}
	err := c.check(ctx, e.digest(), name, e.size)
	if err == nil {
		c.m.verified.Inc()
		c.mu.Lock()
		e.suspect = false
		delete(c.suspects, e)
		c.dirty[e] = struct{}{}
		c.freeNameLocked(e.digest())
		c.mu.Unlock()
		c.sync.nudge()
		return nil
	}
	if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) {
		c.freeName(e.digest())
		return err
	}
	c.m.corrupt.Inc()
	c.log.Error("removed corrupt blob after an unclean stop", "digest", e.digest(), "error", err)
	c.mu.Lock()
	c.drop(e, GoneDamaged)
	c.mu.Unlock()
	c.evictor.unlinkDropped()
	return ErrNotFound
}
