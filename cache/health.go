package cache

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// troubleLasts is how long [Cache.Check] reports a failure of the disk.
const troubleLasts = 5 * time.Minute

// trouble is the newest failure of the disk that made a pull pass its content through uncached.
type trouble struct {
	mu  sync.Mutex // guards the fields below
	at  time.Time
	err error
}

// note records a failure of the disk. It ignores ErrTooLarge.
func (t *trouble) note(err error) {
	if errors.Is(err, ErrTooLarge) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.at, t.err = time.Now(), err
}

// [trouble.recent] returns the newest failure if it is not older than troubleLasts.
func (t *trouble) recent() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil || time.Since(t.at) > troubleLasts {
		return nil
	}
	return fmt.Errorf("content passed through uncached, the last time at %s: %w", t.at.UTC().Format(time.TimeOnly), t.err)
}
