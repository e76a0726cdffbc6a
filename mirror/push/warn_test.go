package push

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"dray/mirror/pipeline"
	"dray/mirror/request"
	"dray/mirror/wire"
)

// TestWarn: findings that are waived leave the room for warnings to the others.
func TestWarn(t *testing.T) {
	waived := pipeline.Finding{Stage: "s", Rule: "r", What: strings.Repeat("x", 400), Waived: "known"}
	r := &pipeline.Report{Findings: append(slices.Repeat([]pipeline.Finding{waived}, 20), pipeline.Finding{Stage: "s", Rule: "r", What: "it is bad"})}
	rec := httptest.NewRecorder()
	warn(&request.Request{W: wire.NewResponse(rec, httptest.NewRequest("PUT", "/", nil), wire.Options{})}, r)
	if got := rec.Header().Values("Warning"); !slices.Equal(got, []string{`299 - "[s/r] it is bad"`}) {
		t.Errorf("warnings %q", got)
	}
}
