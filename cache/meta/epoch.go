package meta

import (
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// epoch is a period of a tag, or of a digest that was not found. It ends when the tag is pushed,
// deleted or forgotten, or when the digest arrives. Each fact about the tag, or about the absence
// of the digest, names the epoch in which its question was asked, and is invisible in any other
// epoch.
type epoch struct {
	Name string `json:"e"`
	// By is the name of the process that began the epoch. It is empty in epochs of older versions,
	// and of processes that share their store with no other process.
	By string `json:"p,omitempty"`
	// Began is when the epoch began, in Unix nanoseconds. Only older versions read it. This version
	// does not, because the clocks of mirrors may differ.
	Began int64 `json:"b"`
}

func (e epoch) check() error {
	if e.Name == "" {
		return errors.New("epoch without a name")
	}
	return nil
}

// dated is the part of a record that says when the upstream was asked.
type dated struct {
	// Checked is when the upstream was asked, in Unix nanoseconds, by the clock of the mirror that
	// asked. It is used only if Stamp is 0.
	Checked int64 `json:"c"`
	// Stamp is the same time in Unix nanoseconds, by the clock of the store. It is 0 if the store
	// is not [Clocked] or did not answer, and in the records of older versions.
	Stamp int64  `json:"t,omitempty"`
	Epoch string `json:"e,omitempty"`
}

func (d dated) date() dated { return d }

// answer is a record of an answer of an upstream.
type answer interface {
	record
	date() dated
}

// Question is the state of the facts before an upstream was asked. The answer is recorded only if
// no later push or answer has made it out of date.
type Question struct {
	asked time.Time
	// fact is the record that the answer is to replace, and epoch is the epoch of its tag or digest.
	fact, epoch Seen
	answered    bool // the store answered; otherwise fact and epoch are from memory
}

// Asked returns when the question was made, which is before the upstream is asked.
func (q Question) Asked() time.Time { return q.asked }

// epochTTL is how long an epoch is kept. It must be longer than the TTL of every fact that the
// epoch hides.
const epochTTL = tagsTTL + time.Hour

func newEpoch(by string) epoch {
	return epoch{Name: rand.Text(), By: by, Began: time.Now().UnixNano()}
}

// [beginning] returns the write that begins a new epoch under a key.
func beginning[R record](l ledger[R], key string) (Write, epoch, error) {
	e := newEpoch(processOf(l.store))
	entry, err := sibling[epoch](l).entry(key, e)
	return Write{entry, epochTTL}, e, err
}

// begin begins a new epoch under a key. Facts from earlier epochs under this key become invisible.
func begin[R record](ctx context.Context, l ledger[R], key string) error {
	w, _, err := beginning(l, key)
	if err != nil {
		return err
	}
	return l.store.Put(ctx, w.Key, w.Value, w.TTL)
}

// epochIn returns the epoch that was seen, or the zero epoch if there is none.
func epochIn[R record](l ledger[R], s Seen) epoch {
	if !s.Found {
		return epoch{}
	}
	e, err := sibling[epoch](l).decode(s.Value)
	if err != nil {
		return epoch{}
	}
	return e
}

// answers returns for each key the record that is visible in the epoch under epochKey, or nil if
// there is none. If fromStore is set, answers reads from the store, and not from memory. The
// Question is about the first key. It is valid even if the store fails.
func answers[R answer](ctx context.Context, l ledger[R], fromStore bool, epochKey string, keys ...string) ([]*R, Question, error) {
	q := Question{asked: time.Now(), fact: Seen{Entry: Entry{Key: keys[0]}}, epoch: Seen{Entry: Entry{Key: epochKey}}}
	all := append(keys[:len(keys):len(keys)], epochKey)
	var seen []Seen
	var err error
	if fromStore {
		seen, err = Reread(ctx, l.store, all)
	} else {
		seen, err = GetAllLeased(ctx, l.store, all, l.lease)
	}
	found := make([]*R, len(keys))
	if len(seen) != len(all) {
		return found, q, err
	}
	q.fact, q.epoch, q.answered = seen[0], seen[len(keys)], err == nil
	if !fromStore && q.epoch.Refused && !q.epoch.Found {
		// The store refused to write the epoch. The records may be older than this epoch.
		return found, q, err
	}
	e := epochIn(l, q.epoch)
	for i := range keys {
		if !seen[i].Found {
			continue
		}
		if r, failed := l.decode(seen[i].Value); failed == nil && r.date().Epoch == e.Name {
			found[i] = &r
		}
	}
	return found, q, err
}

// [Question.doubtful] reports whether the store has refused the last write of this process to the
// fact or its epoch. The entries in the store may then be older than that write.
func (q Question) doubtful() bool { return q.fact.Refused || q.epoch.Refused }

// maxSwaps bounds the attempts to record an answer while other processes record their answers.
const maxSwaps = 3

// recordAnswer records the answer to a question. newRecord returns the record of the answer.
// askedAt is when the upstream was asked. ok is false if the answer is out of date: a new epoch has
// begun since the question, or the answer to a later question is recorded. ok is also false if
// other processes wrote first in all maxSwaps attempts.
func recordAnswer[R answer](ctx context.Context, l ledger[R], q Question, askedAt time.Time, ttl time.Duration, newRecord func(dated) R) (ok bool, err error) {
	date := dateOf(ctx, l.store, askedAt, epochIn(l, q.epoch))
	var writes []Write
	if q.epoch.Refused { // begin the epoch again in the store, to hide the older records
		w, e, err := beginning(l, q.epoch.Key)
		if err != nil {
			return false, err
		}
		writes, date.Epoch = append(writes, w), e.Name
	}
	entry, err := l.entry(q.fact.Key, newRecord(date))
	if err != nil {
		return false, err
	}
	writes = append(writes, Write{entry, ttl})
	for range maxSwaps {
		if ok, err := Swap(ctx, l.store, writes, []Seen{q.epoch, q.fact}); ok || err != nil {
			return ok, err
		}
		seen, err := Reread(ctx, l.store, []string{q.fact.Key, q.epoch.Key})
		if err != nil {
			return false, err
		}
		if !seen[1].same(q.epoch) {
			return false, nil
		}
		if r, err := l.decode(seen[0].Value); err == nil && seen[0].Found && r.date().Epoch == date.Epoch && !r.date().before(date) {
			return false, nil
		}
		q.fact = seen[0]
	}
	return false, nil
}

// dateOf returns the date of an answer. askedAt is the time of its question by the clock of this
// process.
func dateOf(ctx context.Context, s Store, askedAt time.Time, e epoch) dated {
	d := dated{Checked: askedAt.UnixNano(), Epoch: e.Name}
	if store, local := Clock(ctx, s); !store.Equal(local) { // equal: the store is not Clocked, or did not answer
		d.Stamp = store.Add(askedAt.Sub(local)).UnixNano()
	}
	return d
}

// [dated.before] reports whether the question of d was asked before the question of o.
func (d dated) before(o dated) bool {
	if d.Stamp != 0 && o.Stamp != 0 {
		return d.Stamp < o.Stamp
	}
	return d.Checked < o.Checked
}

// [dated.time] returns when the question was asked, by the clock of this process.
func (d dated) time(ctx context.Context, s Store) time.Time {
	if d.Stamp == 0 {
		return time.Unix(0, d.Checked)
	}
	store, local := Clock(ctx, s)
	return local.Add(time.Unix(0, d.Stamp).Sub(store))
}
