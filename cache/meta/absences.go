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

// AbsentFact says that an upstream answered "not found" to the question of an [AbsentKey].
type AbsentFact struct {
	CheckedAt time.Time // when the upstream was asked
	Reason    Reason
}

// Absences remembers which content an upstream does not have. As with [Tags], one call forgets all
// facts about a digest, including answers that are still on their way.
type Absences struct{ ledger[absentRecord] }

// Absences returns an Absences that keeps its facts in the store of t, with the TTL and the metrics
// of t.
func (t *Tags) Absences() *Absences { return &Absences{sibling[absentRecord](t.ledger)} }

// absentRecord is the stored form of an AbsentFact.
type absentRecord struct {
	Reason Reason `json:"r,omitzero"`
	dated
}

func (r absentRecord) check() error {
	if r.Checked <= 0 {
		return errors.New("absence without a time")
	}
	return nil
}

// Get returns the fact about k, ErrNotFound if there is none, or the failure of the store.
func (a *Absences) Get(ctx context.Context, k AbsentKey) (AbsentFact, error) {
	all, _, err := answers(ctx, a.ledger, false, k.returnedKey(), k.key())
	if err == nil && all[0] == nil {
		err = ErrNotFound
	}
	if err != nil {
		return AbsentFact{}, fmt.Errorf("absence of %s: %w", k, err)
	}
	return AbsentFact{all[0].time(ctx, a.store), all[0].Reason}, nil
}

// Ask returns the question for a digest. The caller must not ask the upstream before Ask has
// returned.
func (a *Absences) Ask(ctx context.Context, k AbsentKey) Question {
	_, q, _ := answers(ctx, a.ledger, false, k.returnedKey(), k.key())
	if q.epoch.Refused {
		// The store refused the last epoch that this process wrote. So memory may have a wrong epoch,
		// and Set needs the one in the store.
		_, q, _ = answers(ctx, a.ledger, true, k.returnedKey(), k.key())
	}
	return q
}

// Set records f, which is the answer to q, for the time ttl. The TTL of facts about tags bounds
// this time. Set records nothing and returns nil if ttl is not positive, or if Forget was called
// for the digest since the question.
func (a *Absences) Set(ctx context.Context, q Question, f AbsentFact, ttl time.Duration) error {
	if ttl <= 0 {
		return nil
	}
	_, err := recordAnswer(ctx, a.ledger, q, f.CheckedAt, min(ttl, a.ttl), func(d dated) absentRecord { return absentRecord{f.Reason, d} })
	if err != nil {
		return fmt.Errorf("set absence of %s: %w", q.fact.Key, err)
	}
	return nil
}

// Forget makes every fact about a digest in a repository invisible, because the repository now has
// the content.
func (a *Absences) Forget(ctx context.Context, upstream, repo string, d digest.Digest) error {
	k := AbsentKey{Upstream: upstream, Repo: repo, Digest: d}
	if err := begin(ctx, a.ledger, k.returnedKey()); err != nil {
		return fmt.Errorf("forget absence of %s: %w", k, err)
	}
	return nil
}

// String returns the digest with its repository, for messages.
func (k AbsentKey) String() string { return digestKey{k.Upstream, k.Repo, k.Digest}.String() }
