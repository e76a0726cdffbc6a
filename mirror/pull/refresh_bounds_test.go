package pull

import (
	"fmt"
	"testing"
	"time"

	"dray/cache/meta"
)

// The tags that are asked for in the background are bounded.
func TestRefreshesBounded(t *testing.T) {
	r := newRefreshes()
	for i := range maxRefreshes + 10 {
		k := tagKeyOf(i)
		if began := r.begin(k, time.Now()); began != (i < maxRefreshes) {
			t.Fatalf("refresh %d: %v", i, began)
		}
	}
	for i := range maxRefreshes {
		r.putOff(tagKeyOf(i))
	}
	if r.begin(tagKeyOf(0), time.Now()) || !r.begin(tagKeyOf(0), time.Now().Add(refreshRetry+time.Second)) {
		t.Error("a tag that could not be asked for has no pause, or one without end")
	}
}

func tagKeyOf(i int) meta.TagKey { return meta.TagKey{Repo: "r", Tag: fmt.Sprint(i)} }

// Refusals are remembered for a bounded number of tags, and for no newer fact.
func TestRefusedBounded(t *testing.T) {
	r, now := newRefreshes(), time.Now()
	for i := range maxRefreshes + 10 {
		r.refuse(tagKeyOf(i), now)
	}
	last := tagKeyOf(maxRefreshes + 9)
	if len(r.refused) != maxRefreshes || !r.isRefused(last, now) || r.isRefused(last, now.Add(1)) || len(r.refused) != maxRefreshes-1 {
		t.Errorf("%d refused", len(r.refused))
	}
}
