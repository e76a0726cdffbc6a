package meta

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// epoch is the time between two calls of Forget for a tag or a digest. Every fact names the epoch
// in which it was recorded, and is invisible in any other epoch. An answer to a question that was
// asked before Began is not recorded.
type epoch struct {
	Name  string `json:"e"`
	Began int64  `json:"b"` // Unix nanoseconds
}

func (e epoch) check() error {
	if e.Name == "" {
		return errors.New("epoch without a name")
	}
	return nil
}

// hides reports whether a fact is invisible in e. The fact names the epoch in name, and the
// upstream was asked at the time checked.
func (e epoch) hides(name string, checked int64) bool { return name != e.Name || checked < e.Began }

// epochs stores the epochs of the facts in a ledger.
type epochs struct{ ledger[epoch] }

func epochsOf[R record](l ledger[R]) epochs {
	e := sibling[epoch](l)
	e.ttl += time.Hour // an epoch must outlive every fact that it hides
	return epochs{e}
}

// at returns the epoch under key, or the zero epoch if there is none.
func (s epochs) at(ctx context.Context, key string) (epoch, error) {
	e, err := s.read(ctx, key)
	if errors.Is(err, ErrNotFound) {
		return epoch{}, nil
	}
	if Age(time.Now(), time.Unix(0, e.Began)) > s.ttl {
		// If Began lies in the future, the clock that gave it was wrong. It would hide every fact until
		// that time.
		e.Began = 0
	}
	return e, err
}

// begin replaces the epoch under key, which makes all facts recorded so far invisible.
func (s epochs) begin(ctx context.Context, key string) error {
	return s.write(ctx, key, epoch{Name: rand.Text(), Began: time.Now().UnixNano()})
}
