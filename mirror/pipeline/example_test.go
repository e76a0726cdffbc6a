package pipeline_test

import (
	"context"
	"fmt"
	"strings"

	"dray/mirror/pipeline"
)

// freeze is a stage that rejects every push to repositories below a prefix. A stage that looks
// into layers also implements LayerStage, and one that judges whole images ImageStage.
type freeze struct{ prefix string }

// Name implements pipeline.Stage. Reports, waivers and metrics use it.
func (freeze) Name() string { return "freeze" }

// Revision implements pipeline.Stage. Raise the version when a code change alters verdicts.
func (f freeze) Revision() string { return pipeline.Revision(1, f.prefix) }

// CheckName implements pipeline.NameStage. The pipeline sets stage, mode and fingerprint.
func (f freeze) CheckName(_ context.Context, n pipeline.Name) ([]pipeline.Finding, error) {
	if !strings.HasPrefix(n.Repository, f.prefix) {
		return nil, nil
	}
	return []pipeline.Finding{{
		Rule: "frozen",
		What: fmt.Sprintf("%s takes no pushes", n.Repository),
		Fix:  "push to staging/ instead",
	}}, nil
}

// A stage needs Name and Revision, and the methods of its checks.
func ExampleStage() {
	p, err := pipeline.New(pipeline.Options{
		Name:  "house",
		Steps: []pipeline.Step{{Stage: freeze{"release/"}, Mode: pipeline.Enforce}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// CheckName returns nil if there are no findings and no unknowns.
	fmt.Println(p.CheckName(context.Background(), pipeline.Name{Repository: "staging/app"}) == nil)

	report := p.CheckName(context.Background(), pipeline.Name{Repository: "release/app", Tag: "2.0"})
	fmt.Println(report.Outcome(), report.Broken())
	fmt.Println(report.Findings[0].What + "; " + report.Findings[0].Fix)
	// Output:
	// true
	// reject [freeze/frozen]
	// release/app takes no pushes; push to staging/ instead
}
