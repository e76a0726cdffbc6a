package meta

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// AbsentKey names one question about a digest. Accept is the normalised Accept header of a question
// about a manifest. Accept is a part of the key because some registries answer "not found" to
// clients that do not accept the type of the manifest.
type AbsentKey struct {
	Upstream, Repo string
	Digest         digest.Digest
	Kind           Kind
	Accept         string
}

// AbsentFact says that an upstream answered that there is no such content.
type AbsentFact struct {
	CheckedAt time.Time // when the upstream was asked
	Reason    Reason
}

// Absences remembers which content an upstream does not have. As with [Tags], all facts about a
// digest can be forgotten at once, including answers that are still on their way.
type Absences struct{ ledger[absentRecord] }

// Absences returns the facts about absent digests in the store of t. They share the TTL and the
// metrics of t.
func (t *Tags) Absences() *Absences { return &Absences{sibling[absentRecord](t.ledger)} }

// absentRecord is the stored form of an AbsentFact.
type absentRecord struct {
	Checked int64  `json:"c"` // Unix nanoseconds
	Reason  Reason `json:"r,omitzero"`
	Epoch   string `json:"e,omitempty"`
}

func (r absentRecord) check() error {
	if r.Checked <= 0 {
		return errors.New("absence without a time")
	}
	return nil
}

// Get returns the fact about k, ErrNotFound if there is none, or the failure of the store.
func (a *Absences) Get(ctx context.Context, k AbsentKey) (AbsentFact, error) {
	r, err := a.read(ctx, k.key())
	if err != nil {
		return AbsentFact{}, fmt.Errorf("absence of %s: %w", k, err)
	}
	e, err := epochsOf(a.ledger).at(ctx, k.returnedKey())
	if err == nil && e.hides(r.Epoch, r.Checked) {
		err = ErrNotFound
	}
	if err != nil {
		return AbsentFact{}, fmt.Errorf("absence of %s: %w", k, err)
	}
	return AbsentFact{time.Unix(0, r.Checked), r.Reason}, nil
}

// Set records f. The parameter window is how long the fact is kept, at most as long as facts about
// tags. Set records nothing and returns nil if window is not positive, or if the question was asked
// before the last Forget of its digest.
func (a *Absences) Set(ctx context.Context, k AbsentKey, f AbsentFact, window time.Duration) error {
	if window <= 0 {
		return nil
	}
	e, err := epochsOf(a.ledger).at(ctx, k.returnedKey())
	if err != nil {
		return fmt.Errorf("set absence of %s: %w", k, err)
	}
	r := absentRecord{Checked: f.CheckedAt.UnixNano(), Reason: f.Reason, Epoch: e.Name}
	if e.hides(r.Epoch, r.Checked) {
		return nil
	}
	if err := a.writeFor(ctx, k.key(), r, min(window, a.ttl)); err != nil {
		return fmt.Errorf("set absence of %s: %w", k, err)
	}
	return nil
}

// Forget makes every fact about a digest in a repository invisible, because the repository has got
// the content.
func (a *Absences) Forget(ctx context.Context, upstream, repo string, d digest.Digest) error {
	k := AbsentKey{Upstream: upstream, Repo: repo, Digest: d}
	if err := epochsOf(a.ledger).begin(ctx, k.returnedKey()); err != nil {
		return fmt.Errorf("forget absence of %s: %w", k, err)
	}
	return nil
}

// String returns the digest with its repository, for messages.
func (k AbsentKey) String() string { return digestKey{k.Upstream, k.Repo, k.Digest}.String() }
