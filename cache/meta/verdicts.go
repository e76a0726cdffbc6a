package meta

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/opencontainers/go-digest"
)

// Verdicts remembers the answers that checks gave about content, such as a layer. A check is a
// stage of a pipeline. The key of an answer has the digest of the content, the check and its
// revision, so an answer is never used after the check has changed.
type Verdicts struct {
	ledger[verdictRecord]
}

// NewVerdicts returns the verdicts in s. By default they are kept for 30 days.
func NewVerdicts(s Store, o Options) *Verdicts {
	return &Verdicts{newLedger[verdictRecord](s, "verdicts", cmp.Or(o.TTL, 30*24*time.Hour))}
}

// verdictRecord is the stored form of an answer, which the check has encoded as JSON.
type verdictRecord struct {
	Answer json.RawMessage `json:"a"`
}

func (r verdictRecord) check() error {
	if len(r.Answer) == 0 {
		return errors.New("verdict without an answer")
	}
	return nil
}

// Recall returns the answer of a check about d. It returns false if there is no answer or the store
// fails. The caller then checks the content again.
func (v *Verdicts) Recall(ctx context.Context, d digest.Digest, check, revision string) ([]byte, bool) {
	r, err := v.read(ctx, verdictKey(d, check, revision))
	return r.Answer, err == nil
}

// Remember keeps the answer of a check about d. answer must be JSON. If the answer cannot be kept,
// the content will be checked again.
func (v *Verdicts) Remember(ctx context.Context, d digest.Digest, check, revision string, answer []byte) {
	if checkDigest(d) == nil {
		_ = v.write(ctx, verdictKey(d, check, revision), verdictRecord{Answer: answer})
	}
}
