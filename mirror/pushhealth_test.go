package mirror

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"dray/upstream/oci"
)

// A few failures of one step in a row tell that pushes fail, and a success of that step that they
// do not. Successes of other steps and upstreams, and refusals, tell nothing.
func TestPushHealth(t *testing.T) {
	start, send := pushStep{"ecr", oci.KindUploads, "POST"}, pushStep{"ecr", oci.KindUpload, "PATCH"}
	elsewhere := pushStep{"lab", oci.KindUploads, "POST"}
	synctest.Test(t, func(t *testing.T) {
		p := pushHealth{steps: map[pushStep]*failures{}}
		fails := func(want bool) {
			t.Helper()
			if err := p.check(t.Context()); (err != nil) != want {
				t.Errorf("%v, want an error %t", err, want)
			}
		}
		for range failuresInRow - 1 {
			p.record(start, 503, "no room")
			p.record(send, 202, "")
		}
		fails(false)
		p.record(start, 202, "")
		p.record(start, 503, "no room")
		p.record(start, 503, "no room")
		fails(false)
		p.record(start, 503, "no room now")
		fails(true)
		if err := p.check(t.Context()).Error(); !strings.Contains(err, "no room now") || !strings.Contains(err, "ecr") || !strings.Contains(err, "3 POST") {
			t.Error(err)
		}
		for _, other := range []pushStep{send, elsewhere} {
			p.record(other, 202, "")
		}
		p.record(start, 429, "")
		p.record(start, 403, "")
		fails(true)
		time.Sleep(failuresLast - time.Minute)
		fails(true)
		p.record(start, 202, "")
		fails(false)

		for range failuresInRow {
			p.record(start, 502, "")
		}
		time.Sleep(failuresLast + time.Second)
		fails(false)
		p.record(start, 502, "")
		fails(false)
	})
}
